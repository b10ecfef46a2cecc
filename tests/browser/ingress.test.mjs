// The console behind nginx with docs/nginx.conf: signing in and Connect work once the gateway knows the name that browsers
// see, and say what to set while it does not.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, newPage, shared, signInAtProvider } from './browser.mjs';
import { open, signIn } from './console.mjs';
import { MASTER_KEY, gateway, nginx, protectedServer, provider } from './programs.mjs';

const file = shared(after);
let people;
let server;

before(async () => {
  people = await provider(file);
  server = await protectedServer(file, people);
});

async function behind(t, tls, settings, named) {
  const proxy = await nginx(t, { tls });
  const config = `
general_settings: {master_key: ${MASTER_KEY}${settings}}
mcp_servers:
  wiki: {url: "${server.url}/mcp", auth_type: oauth2}
`;
  const at = await gateway(t, config, named ? { publicOrigin: proxy.url } : {});
  await proxy.serve(at);
  return proxy;
}

const FORWARDED = ', use_x_forwarded_for: true, mcp_trusted_proxy_ranges: ["127.0.0.1/32"]';
for (const [how, settings, named] of [['PROXY_BASE_URL', '', true], ['trusted forwarded headers', FORWARDED, false]]) {
  for (const tls of [true, false]) {
    test(`sign in and connect behind nginx ${tls ? 'with' : 'without'} TLS, by ${how}`, async (t) => {
      const at = await behind(t, tls, settings, named);
      const page = await newPage(t);
      await signIn(page, at, { user: 'alice' });
      const session = (await page.context().cookies(at.url)).find(({ name }) => name.endsWith('vestibule_session'));
      assert.deepEqual({ ...session, value: '', expires: 0 }, {
        name: tls ? '__Host-vestibule_session' : 'vestibule_session', value: '', domain: 'localhost', path: '/', expires: 0,
        httpOnly: true, secure: tls, sameSite: 'Lax',
      });
      await open(page, 'My connections');
      await page.getByRole('link', { name: 'Connect wiki', exact: true }).click();
      await signInAtProvider(page, 'alice');
      await page.getByText('wiki is connected').waitFor();
      assert.equal(new URL(page.url()).origin, at.url);
    });
  }
}

for (const [what, settings] of [['nothing is set', ''], ['the proxy is not trusted', ', use_x_forwarded_for: true']]) {
  test(`a form behind nginx is a 400 that says what to set when ${what}`, async (t) => {
    const at = await behind(t, true, settings, false);
    const page = await newPage(t);
    await page.goto(`${at.url}/ui`);
    await page.getByLabel('Gateway key').fill(MASTER_KEY);
    const [answer] = await Promise.all([page.waitForNavigation(), page.getByRole('button', { name: 'Sign in' }).click()]);
    assert.equal(answer.status(), 400);
    const text = await page.innerText('main');
    for (const part of [`PROXY_BASE_URL=${at.url}`, at.url.replace('https', 'http'), 'use_x_forwarded_for', 'mcp_trusted_proxy_ranges']) {
      assert.ok(text.includes(part), `${part} is not in: ${text}`);
    }
    await accessible(page);
  });
}
