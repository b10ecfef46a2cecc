// Every page of the console that a link leads to, with markup in every value that comes from outside: it stays text, axe
// has nothing serious to say in light and dark, and a phone is wide enough.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, fits, shared, visitor } from './browser.mjs';
import { crawl, open, signIn } from './console.mjs';
import { MASTER_KEY, api, gateway, hostileServer, mock, sdkClient } from './programs.mjs';

const MARKUP = `</title></script>--><script>alert('outside')</script><img src=x onerror=alert(1)>"onfocus="alert(2)" autofocus='`;
const file = shared(after);
let at;
let member; // a key with markup in whatever a key has

before(async () => {
  const [hostile, machine] = await Promise.all([hostileServer(file), mock(file)]);
  const text = JSON.stringify(MARKUP);
  const oauth = `auth_type: oauth2, client_id: ${text}, client_secret: canary-hostile-secret-a1, authorization_url: "${hostile.url}/authorize", token_url: "${hostile.url}/token"`;
  at = await gateway(file, `
general_settings: {master_key: ${MASTER_KEY}}
mcp_servers:
  hostile: {url: "${hostile.url}/mcp", alias: hostile_alias, description: ${text}, instructions: ${text}}
  refusing_people: {url: "${hostile.url}/mcp", description: ${text}, ${oauth}}
  refusing_machines: {url: "${hostile.url}/mcp", oauth2_flow: client_credentials, ${oauth}}
  unreachable: {url: "http://127.0.0.1:9/mcp?${encodeURIComponent(MARKUP)}", static_headers: {x-markup: ${text}}}
  fine: {url: "${machine.url}/mcp", auth_type: oauth2, client_id: test-client, client_secret: test-secret, token_url: "${machine.url}/oauth/token"}
`);
  at.secrets.push('canary-hostile-secret-a1');
  const made = async (route, body) => {
    const { status, body: answer } = await api(at, 'POST', route, body);
    assert.ok(status < 300, `${route} ${status} ${JSON.stringify(answer)}`);
    return answer;
  };
  await made('/user/new', { user_id: MARKUP, user_alias: MARKUP, user_email: MARKUP, auto_create_key: false });
  ({ key: member } = await made('/key/generate', {
    user_id: MARKUP, key_alias: MARKUP, metadata: { [MARKUP]: MARKUP },
    object_permission: { mcp_servers: ['hostile', 'refusing_people', 'refusing_machines', 'unreachable', 'fine'], mcp_tool_permissions: { hostile: [MARKUP, 'plain'] } },
  }));
  await made('/v1/mcp/server', { server_name: 'stored', url: `${hostile.url}/mcp`, transport: 'http', description: MARKUP });
  // Calls and refusals for the log, by a client and an agent with such names.
  await sdkClient(`${at.url}/fine/mcp`, member, [['tools/list'], ['tools/call', 'echo', { message: MARKUP }]]);
  await sdkClient(`${at.url}/hostile/mcp`, member, [['tools/list'], ['tools/call', MARKUP, {}]]);
  for (const server of ['refusing_machines', 'refusing_people', 'unreachable']) {
    await fetch(`${at.url}/${server}/mcp`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'x-litellm-api-key': `Bearer ${member}`, 'user-agent': MARKUP },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: MARKUP, version: MARKUP } } }),
    });
  }
});

async function judged(page) {
  await accessible(page);
  await page.emulateMedia({ colorScheme: 'dark' });
  await accessible(page);
  await page.setViewportSize({ width: 360, height: 800 });
  await fits(page);
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 1200, height: 900 });
}

// Links that leave the console for a provider, and a file to save.
const leaves = ({ pathname }) => /^\/ui\/(connect(\/|$)|activity\/export$)/.test(pathname);

test('every page of an admin', async (t) => {
  const context = await visitor(t, { userAgent: MARKUP });
  const page = await context.newPage();
  await page.goto(`${at.url}/ui/login`);
  await judged(page);
  await signIn(page, at, { user: MARKUP });
  const found = await crawl(page, judged, leaves);
  for (const part of ['servers', 'connections', 'keys', 'users', 'activity', 'health', 'sessions']) {
    assert.ok(found.includes(`/ui/${part}`), `no link leads to /ui/${part}: ${found.join(' ')}`);
  }
  for (const cookie of await context.cookies(at.url)) {
    assert.ok(cookie.httpOnly && cookie.sameSite !== 'None', `the cookie ${cookie.name} is open to others`);
  }
});

test('every page of somebody with a key', async (t) => {
  const page = await (await visitor(t, { userAgent: MARKUP })).newPage();
  await signIn(page, at, { key: member });
  const found = await crawl(page, judged, leaves);
  assert.ok(found.includes('/ui/connections'));
  assert.deepEqual(found.filter((path) => /^\/ui\/(keys|users|health)/.test(path)), [], 'what is an admin\'s is not linked');
  for (const path of ['/ui/users', '/ui/health', '/ui/servers/new']) {
    const answer = await page.goto(`${at.url}${path}`);
    assert.equal(answer.status(), 403);
    await judged(page);
  }
});

test('what a provider says in a refusal is text on the page it comes back to', async (t) => {
  const page = await (await visitor(t)).newPage();
  await signIn(page, at, { user: 'alice' });
  await open(page, 'My connections');
  await page.getByRole('link', { name: 'Connect refusing_people' }).click();
  await page.getByText('authorize description').first().waitFor();
  await judged(page);
});
