// Makes the pictures of docs/console.md (see ./screenshots): a small company's gateway, used for a while, page by page.
//   node screenshots.mjs DIRECTORY
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { shared, signInAtProvider, visitor } from './browser.mjs';
import { choose, field, open, signIn } from './console.mjs';
import { MASTER_KEY, api, everything, gateway, mock, protectedServer, provider, sdkClient } from './programs.mjs';

const target = path.resolve(process.argv[2]);
const WIDTH = 1200;
const TALLEST = 1500; // a picture shows no more of a longer page

// Who asks for programs and browsers here, as a test does elsewhere; what is closed at the end.
let close;
const whole = shared((then) => (close = then));

async function company() {
  const [machine, people, tools] = await Promise.all([mock(whole), provider(whole), everything(whole)]);
  const [wiki, tickets] = await Promise.all([protectedServer(whole, people), protectedServer(whole, people)]);
  const at = await gateway(whole, `
general_settings: {master_key: ${MASTER_KEY}}
mcp_servers:
  warehouse:
    url: "${machine.url}/mcp"
    description: "Stock and orders"
    auth_type: oauth2
    client_id: test-client
    client_secret: test-secret
    token_url: "${machine.url}/oauth/token"
    access_groups: [operations]
  wiki: {url: "${wiki.url}/mcp", auth_type: oauth2, description: "The handbook"}
  tickets: {url: "${tickets.url}/mcp", auth_type: oauth2, description: "Support tickets", access_groups: [support]}
  billing: {url: "http://127.0.0.1:9/mcp", description: "Invoices", static_headers: {x-region: eu}, access_groups: [operations]}
`);
  const made = async (route, body) => (await api(at, 'POST', route, body)).body;
  await made('/v1/mcp/server', { server_name: 'workbench', url: `${tools.url}/mcp`, transport: 'http', description: 'Small tools for trying things' });
  const keys = {};
  for (const [alias, user, object_permission, more] of [
    ['anna-laptop', 'anna', { mcp_servers: ['wiki', 'tickets', 'workbench'] }, { duration: '90d' }],
    ['ben-cursor', 'ben', { mcp_access_groups: ['operations'] }, { rpm_limit: 120 }],
    ['nightly-report', undefined, { mcp_servers: ['warehouse'], mcp_tool_permissions: { warehouse: ['echo'] } }, {}],
    ['carla-old', 'carla', { mcp_servers: ['wiki'] }, { blocked: true }],
  ]) keys[alias] = (await made('/key/generate', { key_alias: alias, user_id: user, object_permission, ...more })).key;
  return { at, keys };
}

async function use({ at, keys }) {
  const echo = [['tools/list'], ['tools/call', 'echo', { message: 'order 4711' }], ['tools/call', 'add', { a: 19, b: 23 }]];
  const quietly = (run) => run.catch(() => {}); // a refusal belongs into the log as well
  await sdkClient(`${at.url}/warehouse/mcp`, keys['nightly-report'], echo);
  await sdkClient(`${at.url}/warehouse/mcp`, keys['ben-cursor'], echo);
  await sdkClient(`${at.url}/workbench/mcp`, keys['anna-laptop'], [['tools/list'], ['tools/call', 'echo', { message: 'hello' }]]);
  await quietly(sdkClient(`${at.url}/billing/mcp`, keys['ben-cursor']));
  await quietly(sdkClient(`${at.url}/warehouse/mcp`, keys['anna-laptop']));
  await quietly(sdkClient(`${at.url}/wiki/mcp`, keys['carla-old']));
  const anna = await (await visitor(whole)).newPage();
  await signIn(anna, at, { key: keys['anna-laptop'] });
  await open(anna, 'My connections');
  await anna.getByRole('link', { name: 'Connect wiki', exact: true }).click();
  await signInAtProvider(anna, 'anna');
  await anna.getByText('wiki is connected').waitFor();
}

// Name of the picture, and the way to its page from wherever the one before left off.
const pages = ({ at }) => [
  ['sign-in', (page) => page.goto(`${at.url}/ui/login`)],
  ['servers', async (page) => {
    await signIn(page, at, { user: 'olga' });
    await open(page, 'Servers');
    await page.getByRole('button', { name: 'Check health' }).click();
    await page.getByText('unhealthy').first().waitFor();
  }],
  ['add-server', async (page) => {
    await page.getByRole('link', { name: 'Add New MCP Server' }).click();
    await field(page, 'MCP Server Name').fill('payroll');
    await choose(page, 'Authentication', 'OAuth');
    await choose(page, 'OAuth Flow Type', 'Machine-to-Machine (M2M)');
  }],
  ['server', async (page) => {
    await open(page, 'Servers');
    await page.getByRole('link', { name: 'workbench', exact: true }).click();
  }],
  ['tools', (page) => page.getByRole('link', { name: 'MCP Tools' }).click()],
  ['tool-result', async (page) => {
    await page.getByRole('link', { name: 'get-structured-content', exact: true }).click();
    await field(page, 'location').selectOption('Chicago');
    await page.getByRole('button', { name: 'Call Tool' }).click();
    await page.getByRole('region', { name: 'Result' }).waitFor();
  }],
  ['prompts', (page) => page.getByRole('link', { name: 'Prompts and resources' }).click()],
  ['settings', (page) => page.getByRole('link', { name: 'Settings' }).click()],
  ['connect', (page) => page.getByRole('link', { name: 'Connect a client' }).click()],
  ['connected', async (page) => {
    await open(page, 'Servers');
    await page.getByRole('link', { name: 'wiki', exact: true }).click();
    await page.getByRole('link', { name: 'Who is connected' }).click();
  }],
  ['connections', (page) => open(page, 'My connections')],
  ['keys', (page) => open(page, 'Keys')],
  ['new-key', (page) => page.getByRole('link', { name: 'New key' }).click()],
  ['key', async (page) => {
    await open(page, 'Keys');
    await page.getByRole('link', { name: 'anna-laptop' }).click();
  }],
  ['users', (page) => open(page, 'Users')],
  ['user', (page) => page.getByRole('link', { name: 'anna', exact: true }).click()],
  ['activity', (page) => open(page, 'Activity')],
  ['call', (page) => page.getByRole('link', { name: 'echo' }).first().click()],
  ['health', (page) => open(page, 'Health')],
  ['sessions', (page) => page.getByRole('link', { name: /olga/ }).click()],
];

async function picture(page, name) {
  for (const theme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: theme });
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.screenshot({ path: path.join(target, `${name}-${theme}.png`), fullPage: true, clip: { x: 0, y: 0, width: WIDTH, height: Math.min(height, TALLEST) } });
  }
}

try {
  const there = await company();
  await use(there);
  mkdirSync(target, { recursive: true });
  const page = await (await visitor(whole, { width: WIDTH })).newPage();
  for (const [name, go] of pages(there)) {
    await go(page);
    await page.waitForLoadState();
    await picture(page, name);
  }
} finally {
  await close();
}
