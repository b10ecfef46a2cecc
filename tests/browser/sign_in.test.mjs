// The pages that a person meets when a client signs in: the gateway's consent, the provider's own two, and a failure.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { accessible, fits, newPage, shared, signInAtProvider, tabTo } from './browser.mjs';
import { MASTER_KEY, closing, gateway, protectedServer, provider } from './programs.mjs';

const MARKUP = `"><script>alert('client')</script><img src=x onerror=alert(1)>`;
const CLIENT = ['--no-registration', '--no-resource-indicators', '--client-id', 'fixed', '--client-secret', 'canary-fixed-secret-51b8'];
const file = shared(after);
let at;

before(async () => {
  const [willing, denying] = await Promise.all([provider(file, ...CLIENT), provider(file, ...CLIENT, '--deny')]);
  const [one, other] = await Promise.all([protectedServer(file, willing, '--any-audience'), protectedServer(file, denying, '--any-audience')]);
  const server = (mcp, { url }) => `{url: "${mcp.url}/mcp", auth_type: oauth2, client_id: fixed, client_secret: canary-fixed-secret-51b8,
    authorization_url: "${url}/auth", token_url: "${url}/token", scopes: [mcp:tools]}`;
  at = await gateway(file, `
general_settings: {master_key: ${MASTER_KEY}}
mcp_servers:
  willing: ${server(one, willing)}
  denying: ${server(other, denying)}
`);
  at.secrets.push('canary-fixed-secret-51b8');
  for (const { url } of [willing, denying]) {
    await fetch(`${url}/control/redirect-uris`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ uri: `${at.url}/callback` }) });
  }
});

// A client of this file: registers, gives the address that it opens in the browser, and says what came back.
async function client(t, server) {
  const listener = http.createServer((req, res) => res.writeHead(200, { 'content-type': 'text/html' }).end('<html lang="en"><title>Done</title><main><h1>Back at the client</h1></main></html>'));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  closing(t, () => listener.close());
  const redirect = `http://127.0.0.1:${listener.address().port}/done`;
  const registered = await fetch(`${at.url}/${server}/register`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ client_name: MARKUP, redirect_uris: [redirect], token_endpoint_auth_method: 'none' }),
  });
  const { client_id } = await registered.json();
  assert.equal(registered.status, 201);
  const challenge = crypto.createHash('sha256').update('v'.repeat(43)).digest('base64url');
  const query = new URLSearchParams({ response_type: 'code', client_id, redirect_uri: redirect, state: MARKUP, code_challenge: challenge, code_challenge_method: 'S256' });
  return { url: `${at.url}/${server}/authorize?${query}`, redirect };
}

for (const theme of ['light', 'dark']) {
  test(`the consent page names a client that calls itself markup, ${theme}, on a phone`, async (t) => {
    const page = await newPage(t, { theme, width: 360 });
    const { url } = await client(t, 'willing');
    await page.goto(url);
    assert.ok((await page.getByRole('heading').innerText()).includes(MARKUP), 'the name is shown as it was sent');
    await accessible(page);
    await fits(page);
  });
}

for (const javaScript of [true, false]) {
  test(`consent, the provider's two pages and back at the client, by keyboard ${javaScript ? 'with' : 'without'} JavaScript`, async (t) => {
    const page = await newPage(t, { javaScript });
    const { url, redirect } = await client(t, 'willing');
    await page.goto(url);
    await tabTo(page, page.getByRole('button', { name: 'Approve' }));
    await page.keyboard.press('Enter');
    await signInAtProvider(page, 'alice');
    await page.getByRole('heading', { name: 'Back at the client' }).waitFor();
    const answer = new URL(page.url());
    assert.equal(answer.origin + answer.pathname, redirect);
    assert.equal(answer.searchParams.get('state'), MARKUP);
    assert.ok(answer.searchParams.get('code'));
  });
}

test('what a provider denies is told to the client', async (t) => {
  const page = await newPage(t);
  const { url } = await client(t, 'denying');
  await page.goto(url);
  await page.getByRole('button', { name: 'Approve' }).click();
  await signInAtProvider(page, 'alice');
  await page.getByRole('heading', { name: 'Back at the client' }).waitFor();
  assert.equal(new URL(page.url()).searchParams.get('error'), 'access_denied');
});

for (const theme of ['light', 'dark']) {
  test(`a failure with markup in every parameter is a page of text, ${theme}`, async (t) => {
    const page = await newPage(t, { theme, width: 360 });
    await page.goto(`${at.url}/callback?${new URLSearchParams({ error: MARKUP, error_description: MARKUP, error_uri: 'javascript:alert(1)' })}`);
    const text = await page.innerText('body');
    assert.equal(text.split(MARKUP).length, 3, 'both are shown as they were sent');
    assert.match(text, /Request id: [0-9a-f]{16}/);
    await accessible(page);
    await fits(page);
  });
}
