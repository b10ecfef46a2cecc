// Pages of other people, in the browser of somebody who is signed in to the console: they send it forms, put it into a
// frame, read it, and lead it astray. Once from another site, once from another port of the same host, whose requests
// carry the session.
import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { shared, visitor } from './browser.mjs';
import { signIn } from './console.mjs';
import { MASTER_KEY, closing, gateway } from './programs.mjs';

const file = shared(after);
let at;

before(async () => {
  at = await gateway(file, `general_settings: {master_key: ${MASTER_KEY}}\n`);
});

async function foreign(t, host, html) {
  const listener = http.createServer((req, res) => res.writeHead(200, { 'content-type': 'text/html' }).end(`<!doctype html><html lang="en"><title>Elsewhere</title>${html}`));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  closing(t, () => listener.close());
  return `http://${host}:${listener.address().port}/`;
}

const stillSignedIn = async (page) => {
  await page.goto(`${at.url}/ui/sessions`);
  await page.getByRole('button', { name: 'Sign out' }).waitFor();
};

for (const host of ['localhost', '127.0.0.1']) {
  for (const action of ['/ui/logout', '/ui/login', '/ui/anything']) {
    test(`a form that ${host} sends to ${action} is refused`, async (t) => {
      const page = await (await visitor(t)).newPage();
      await signIn(page, at);
      await page.goto(await foreign(t, host, `<form method="post" action="${at.url}${action}"><input name="key" value="${MASTER_KEY}"><button>Win</button></form>`));
      const [answer] = await Promise.all([page.waitForResponse((r) => r.url().startsWith(at.url)), page.getByRole('button').click()]);
      assert.equal(answer.status(), 403);
      assert.equal(await answer.headerValue('set-cookie'), null);
      await page.getByText('The form does not come from a page of this gateway.').waitFor();
      await stillSignedIn(page);
    });
  }

  test(`a page of ${host} can neither frame the console nor read it`, async (t) => {
    const page = await (await visitor(t, { expected: [/frame-ancestors|X-Frame-Options/i, /CORS policy/, /ERR_FAILED|ERR_BLOCKED/] })).newPage();
    await signIn(page, at);
    const framed = page.waitForResponse((r) => r.url().startsWith(at.url));
    await page.goto(await foreign(t, host, `<iframe src="${at.url}/ui/sessions"></iframe>`));
    await framed;
    const [, frame] = page.frames();
    await frame.waitForURL('chrome-error://chromewebdata/');
    const read = await page.evaluate((url) => fetch(url, { credentials: 'include' }).then((r) => r.text(), (e) => e.name), `${at.url}/ui/sessions`);
    assert.equal(read, 'TypeError');
    await stillSignedIn(page);
  });
}

test('signing in leads to no other place than the console', async (t) => {
  const page = await (await visitor(t)).newPage();
  const evil = await foreign(t, 'localhost', 'evil');
  await page.goto(`${at.url}/ui/login?next=${encodeURIComponent(evil.replace('http:', ''))}`);
  await page.getByLabel('Gateway key').fill(MASTER_KEY);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('navigation', { name: 'Console' }).waitFor();
  assert.equal(new URL(page.url()).origin, at.url);
});

test('after signing out nothing is left: not the page before, nor the cookie for somebody who copied it', async (t) => {
  const context = await visitor(t);
  const page = await context.newPage();
  await signIn(page, at);
  await page.goto(`${at.url}/ui/sessions`);
  const copied = await context.cookies();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByText('You are signed out.').waitFor();
  await page.goBack();
  await page.getByLabel('Gateway key').waitFor();
  const thief = await visitor(t);
  await thief.addCookies(copied);
  const other = await thief.newPage();
  await other.goto(`${at.url}/ui/sessions`);
  await other.getByLabel('Gateway key').waitFor();
});
