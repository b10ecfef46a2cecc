// What an operator does with the console, step by step and by the words on its pages; each page on the way is judged by axe.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, newPage, shared, signInAtProvider, tabTo } from './browser.mjs';
import { addServer, createServer, field, fillServer, open, said, signIn } from './console.mjs';
import { MASTER_KEY, api, everything, gateway, mock, protectedServer, provider, sdkClient, toolNames } from './programs.mjs';

const file = shared(after);
let machine;
let people;
let wiki;

before(async () => {
  [machine, people] = await Promise.all([mock(file), provider(file)]);
  wiki = await protectedServer(file, people);
});

const empty = (t) => gateway(t, `general_settings: {master_key: ${MASTER_KEY}}\n`);

const M2M = [['Authentication', 'OAuth'], ['OAuth Flow Type', 'Machine-to-Machine (M2M)']];
const credentials = ({ url }) => [['Client ID', 'test-client'], ['Client Secret', 'test-secret'], ['Token URL', `${url}/oauth/token`], ['Scopes', 'mcp:read mcp:write']];

// Interactive is what the form begins with.
const INTERACTIVE = [['Authentication', 'OAuth'], ['OAuth Flow Type', 'Interactive (PKCE)']];

async function callEcho(page, press) {
  await press(page.getByRole('link', { name: 'MCP Tools' }));
  await press(page.getByRole('link', { name: 'echo', exact: true }));
  await field(page, 'message').fill('hello from the console');
  await press(page.getByRole('button', { name: 'Call Tool' }));
  await page.getByRole('region', { name: 'Result' }).getByText('hello from the console', { exact: true }).waitFor();
}

for (const javaScript of [true, false]) {
  test(`add a machine-to-machine server and call its tool, ${javaScript ? 'with' : 'without'} JavaScript`, async (t) => {
    const at = await empty(t);
    const page = await newPage(t, { javaScript });
    await signIn(page, at);
    await addServer(page, 'my_mcp_server', `${machine.url}/mcp`, M2M, credentials(machine));
    await page.getByRole('heading', { name: 'my_mcp_server', level: 1 }).waitFor();
    await accessible(page);
    await callEcho(page, (element) => element.click());
    await accessible(page);
    assert.match(await page.innerText('main'), /m2m-client-credentials/);
    // What the form made is there for everybody, at once.
    assert.deepEqual(await toolNames(`${at.url}/my_mcp_server/mcp`, MASTER_KEY), ['add', 'echo']);
  });
}

test('try a server before it is saved, and the form stays as it is', async (t) => {
  const at = await empty(t);
  const page = await newPage(t);
  await signIn(page, at);
  await fillServer(page, 'tried', `${machine.url}/mcp`, M2M, credentials(machine));
  await page.getByRole('button', { name: 'Try it' }).click();
  await page.getByRole('heading', { name: 'Tried' }).waitFor();
  assert.match(await page.innerText('#tried'), /lists 2 tools/);
  assert.equal(await field(page, 'Client Secret').inputValue(), 'test-secret');
  await accessible(page);
  await createServer(page);
  await page.getByRole('heading', { name: 'tried', level: 1 }).waitFor();
});

test('sign in and call a tool with the keyboard alone', async (t) => {
  const at = await gateway(t, `
general_settings: {master_key: ${MASTER_KEY}}
mcp_servers:
  machine: {url: "${machine.url}/mcp", auth_type: oauth2, client_id: test-client, client_secret: test-secret, token_url: "${machine.url}/oauth/token"}
`);
  const page = await newPage(t);
  const press = async (element) => {
    await tabTo(page, element);
    await page.keyboard.press('Enter');
  };
  await page.goto(`${at.url}/ui`);
  await tabTo(page, page.getByLabel('Gateway key'));
  await page.keyboard.type(MASTER_KEY);
  await page.keyboard.press('Enter');
  await press(page.getByRole('link', { name: 'Servers', exact: true }));
  await press(page.getByRole('link', { name: 'machine', exact: true }));
  await press(page.getByRole('link', { name: 'MCP Tools' }));
  await press(page.getByRole('link', { name: 'echo', exact: true }));
  await tabTo(page, field(page, 'message'));
  await page.keyboard.type('typed');
  await press(page.getByRole('button', { name: 'Call Tool' }));
  await page.getByRole('region', { name: 'Result' }).getByText('typed', { exact: true }).waitFor();
});

for (const javaScript of [true, false]) {
  test(`add an interactive server, connect it, call it as oneself, disconnect it, ${javaScript ? 'with' : 'without'} JavaScript`, async (t) => {
    const at = await empty(t);
    const page = await newPage(t, { javaScript });
    await signIn(page, at, { user: 'alice' });
    await addServer(page, 'wiki', `${wiki.url}/mcp`, INTERACTIVE, []);
    await page.getByRole('link', { name: 'MCP Tools' }).click();
    // No empty list: what is missing is a sign-in.
    await page.getByRole('main').getByRole('link', { name: 'Connect', exact: true }).click();
    await signInAtProvider(page, 'alice');
    await page.getByText('wiki is connected').waitFor();
    await open(page, 'Servers');
    await page.getByRole('link', { name: 'wiki', exact: true }).click();
    await page.getByRole('link', { name: 'MCP Tools' }).click();
    await page.getByRole('link', { name: 'whoami', exact: true }).click();
    await page.getByRole('button', { name: 'Call Tool' }).click();
    await page.getByRole('region', { name: 'Result' }).getByText('alice', { exact: true }).waitFor();
    await open(page, 'My connections');
    await accessible(page);
    await page.getByRole('link', { name: 'Disconnect wiki' }).click();
    await accessible(page);
    await page.getByRole('button', { name: 'Disconnect' }).click();
    await page.getByText('wiki is disconnected.').waitFor();
    await page.getByRole('link', { name: 'Connect wiki', exact: true }).waitFor();
  });
}

test('a provider that denies: the page says so and offers another try', async (t) => {
  const denying = await provider(t, '--deny');
  const server = await protectedServer(t, denying);
  const at = await gateway(t, `general_settings: {master_key: ${MASTER_KEY}}\nmcp_servers:\n  wiki: {url: "${server.url}/mcp", auth_type: oauth2}\n`);
  const page = await newPage(t);
  await signIn(page, at, { user: 'alice' });
  await open(page, 'My connections');
  await page.getByRole('link', { name: 'Connect wiki', exact: true }).click();
  await signInAtProvider(page, 'alice');
  await page.getByText('access_denied').first().waitFor();
  assert.match(await page.innerText('main'), /[0-9a-f]{16}/, 'the request id that finds the log line');
  await page.getByRole('link', { name: 'Connect wiki', exact: true }).waitFor();
  await accessible(page);
});

test('a key for two of three servers, which are all that its client sees, until it is blocked', async (t) => {
  const config = ['one', 'two', 'three'].map((name) =>
    `  ${name}: {url: "${machine.url}/mcp?${name}", auth_type: oauth2, client_id: test-client, client_secret: test-secret, token_url: "${machine.url}/oauth/token"}`);
  const at = await gateway(t, `general_settings: {master_key: ${MASTER_KEY}}\nmcp_servers:\n${config.join('\n')}\n`);
  const page = await newPage(t);
  await signIn(page, at);
  await open(page, 'Keys');
  await accessible(page);
  await page.getByRole('link', { name: 'New key' }).first().click();
  await field(page, 'Alias').fill('colleague');
  await field(page, 'Owner').fill('bob');
  for (const name of ['one', 'two']) await page.getByRole('group', { name: 'Servers' }).getByLabel(name, { exact: true }).check();
  await accessible(page);
  await page.getByRole('button', { name: 'Save' }).click();
  const key = await page.getByText(/^sk-[\w-]{20,}$/).innerText();
  await accessible(page);
  at.secrets.push(key);

  assert.deepEqual(await toolNames(`${at.url}/mcp`, key), ['one-add', 'one-echo', 'two-add', 'two-echo']);
  await assert.rejects(toolNames(`${at.url}/three/mcp`, key), /the client failed/);

  await open(page, 'Keys');
  assert.ok(!(await page.content()).includes(key), 'a key is shown once');
  await page.getByRole('link', { name: 'colleague' }).click();
  await page.getByRole('button', { name: 'Block' }).click();
  await page.getByText('Key colleague is blocked.').waitFor();
  await assert.rejects(sdkClient(`${at.url}/one/mcp`, key), /key_blocked|401|403/);
});

test('an admin sees who is connected and revokes it', async (t) => {
  const at = await gateway(t, `general_settings: {master_key: ${MASTER_KEY}}\nmcp_servers:\n  wiki: {url: "${wiki.url}/mcp", auth_type: oauth2}\n`);
  const { body } = await api(at, 'POST', '/key/generate', { user_id: 'bob', key_alias: 'bob', object_permission: { mcp_servers: ['wiki'] } });
  const bob = await newPage(t);
  await signIn(bob, at, { key: body.key });
  await open(bob, 'My connections');
  await bob.getByRole('link', { name: 'Connect wiki', exact: true }).click();
  await signInAtProvider(bob, 'bob');
  await bob.getByText('wiki is connected').waitFor();
  assert.deepEqual(await toolNames(`${at.url}/wiki/mcp`, body.key), ['add', 'echo', 'whoami']);

  const page = await newPage(t);
  await signIn(page, at);
  await open(page, 'Servers');
  await page.getByRole('link', { name: 'wiki', exact: true }).click();
  await page.getByRole('link', { name: 'Who is connected' }).click();
  await page.getByRole('row', { name: 'bob' }).getByRole('link', { name: 'Revoke' }).click();
  await accessible(page);
  await page.getByRole('button', { name: 'Revoke' }).click();
  await page.getByText('The sign-in of bob is revoked.').waitFor();

  await bob.reload();
  await bob.getByRole('link', { name: 'Connect wiki', exact: true }).waitFor();
  await assert.rejects(toolNames(`${at.url}/wiki/mcp`, body.key), /the client failed/);
});

test('pictures, structured content and failures of a tool are shown', async (t) => {
  const tools = await everything(t);
  const at = await gateway(t, `general_settings: {master_key: ${MASTER_KEY}}\nmcp_servers:\n  workbench: {url: "${tools.url}/mcp"}\n`);
  const page = await newPage(t);
  await signIn(page, at);
  await open(page, 'Servers');
  await page.getByRole('link', { name: 'workbench', exact: true }).click();
  await page.getByRole('link', { name: 'MCP Tools' }).click();
  const result = page.getByRole('region', { name: 'Result' });
  await page.getByRole('link', { name: 'get-tiny-image', exact: true }).click();
  await page.getByRole('button', { name: 'Call Tool' }).click();
  const picture = result.getByRole('img');
  await picture.waitFor();
  assert.ok(await picture.evaluate((img) => img.complete && img.naturalWidth > 0), 'the picture is drawn');
  await accessible(page);
  await page.getByRole('link', { name: 'get-structured-content', exact: true }).click();
  await field(page, 'location').selectOption('Chicago');
  await page.getByRole('button', { name: 'Call Tool' }).click();
  await result.getByText('temperature').first().waitFor();
  await accessible(page);
  // What the form cannot send is said beside the field, and what was written stays.
  await page.getByRole('link', { name: 'get-sum', exact: true }).click();
  await field(page, 'a').fill('seven');
  await field(page, 'b').fill('8');
  await page.getByRole('button', { name: 'Call Tool' }).click();
  await page.getByText('Nothing was sent').waitFor();
  assert.equal(await field(page, 'a').inputValue(), 'seven');
  await accessible(page);
});

test('all servers are connected in one go, and what came of each is said', async (t) => {
  const denying = await provider(t, '--deny');
  const other = await protectedServer(t, denying);
  const second = await protectedServer(t, people);
  const at = await gateway(t, `
general_settings: {master_key: ${MASTER_KEY}}
mcp_servers:
  handbook: {url: "${wiki.url}/mcp", auth_type: oauth2}
  manual: {url: "${second.url}/mcp", auth_type: oauth2}
  refusing: {url: "${other.url}/mcp", auth_type: oauth2}
`);
  const page = await newPage(t);
  await signIn(page, at, { user: 'alice' });
  await open(page, 'My connections');
  await page.getByRole('link', { name: 'Connect all (3)' }).click();
  await signInAtProvider(page, 'alice');
  await page.getByRole('button', { name: 'Approve' }).click(); // known there by now: only asked whether the client may
  await signInAtProvider(page, 'alice');
  await page.getByText('2 of 3 connected').waitFor();
  const text = await page.innerText('main');
  for (const line of ['handbook: connected', 'manual: connected', 'refusing: access_denied']) assert.ok(text.includes(line), text);
  await accessible(page);
});

test('a form that is older than the key, or than its session, saves nothing and says so', async (t) => {
  const at = await gateway(t, `
general_settings: {master_key: ${MASTER_KEY}}
mcp_servers: {machine: {url: "${machine.url}/mcp"}}
`);
  const { key } = (await api(at, 'POST', '/key/generate', { key_alias: 'ci', object_permission: { mcp_servers: ['machine'] } })).body;
  const page = await newPage(t);
  await signIn(page, at, { user: 'alice' });
  const edit = async () => {
    await open(page, 'Keys');
    await page.getByRole('link', { name: 'ci', exact: true }).click();
    await page.getByRole('link', { name: 'Edit', exact: true }).click();
    await field(page, 'Requests a minute').fill('30');
  };
  const save = () => page.getByRole('button', { name: 'Save' }).click();

  await edit();
  await api(at, 'POST', '/key/update', { key, user_id: 'bob' });
  await save();
  await page.getByRole('heading', { name: 'Somebody else changed this key meanwhile' }).waitFor();
  await accessible(page);
  const differences = await page.getByRole('region', { name: 'Differences' }).innerText();
  assert.match(differences, /Owner\s+bob\s+not set/);
  assert.equal(await field(page, 'Requests a minute').inputValue(), '30');
  await field(page, 'Owner').fill('bob');
  await save();
  await page.getByText('Key ci is changed.').waitFor();

  await edit();
  await page.context().clearCookies();
  await save();
  await page.getByText('nothing of what you sent was saved').waitFor();
  await accessible(page);
  await page.getByLabel('Gateway key').fill(MASTER_KEY);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Edit key' }).waitFor();
  assert.match(await said(page), /was not saved/);
});
