// A headless Chromium whose pages are watched: a dialog, an error on the console, a violation of the page's policy, or
// anything left in the browser's storage fails the test that opened the page.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { closing, installed } from './programs.mjs';

const { chromium } = installed('playwright-core');
const AXE = readFileSync(installed.resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE = 10_000; // for one condition on a page

let running;
export function browser() {
  running ??= chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    chromiumSandbox: process.getuid() !== 0,
    // Nothing but the pages under test may ask for anything.
    args: ['--disable-background-networking', '--disable-component-update', '--no-first-run'],
  });
  return running;
}

// What a file's tests share: goes where a test goes, and is closed after the last one, as the browser is.
export function shared(after) {
  const file = { after };
  closing(file, async () => (await running)?.close());
  return file;
}

// One person's browser: cookies of its own. `javaScript: false` is a browser that runs none; `expected` are errors on the
// console that the test is about.
export async function visitor(t, { theme = 'light', javaScript = true, width = 1200, userAgent, expected = [] } = {}) {
  const context = await (await browser()).newContext({
    colorScheme: theme, javaScriptEnabled: javaScript, viewport: { width, height: 900 }, userAgent, ignoreHTTPSErrors: true,
    reducedMotion: 'reduce', permissions: ['clipboard-read', 'clipboard-write'],
  });
  context.setDefaultTimeout(PATIENCE);
  if (!javaScript) still.add(context);
  const troubles = [];
  context.on('dialog', (dialog) => {
    troubles.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  context.on('weberror', (e) => troubles.push(`an error in a script: ${e.error()}`));
  context.on('console', (message) => {
    // Chromium says this of every page that is answered with an error, and those are meant; and of servers without a picture.
    const { url } = message.location();
    const meant = (/^Failed to load resource/.test(message.text()) && (url === message.page()?.url() || url.endsWith('/favicon.ico')))
      || expected.some((pattern) => pattern.test(message.text()));
    if (message.type() === 'error' && !meant) troubles.push(`on the console: ${message.text()} (${url})`);
  });
  context.on('request', (request) => {
    const { hostname, protocol } = new URL(request.url());
    if (!['127.0.0.1', 'localhost'].includes(hostname) && protocol !== 'data:') troubles.push(`a request to ${request.url()}`);
  });
  if (javaScript) {
    await context.addInitScript(() => addEventListener('securitypolicyviolation',
      (e) => console.error(`the policy forbids ${e.violatedDirective}: ${e.blockedURI}`)));
  }
  closing(t, async () => {
    for (const page of context.pages()) troubles.push(...await kept(page));
    await context.close();
    assert.deepEqual(troubles, []);
  });
  return context;
}

// Contexts that run no script, so axe neither; their pages are the same.
const still = new WeakSet();

export const newPage = async (t, options) => (await visitor(t, options)).newPage();

// What a page keeps in the browser where scripts can read it.
async function kept(page) {
  if (!/^https?:/.test(page.url())) return [];
  const found = await page.evaluate(async () => [
    ...Object.keys(localStorage).map((name) => `localStorage ${name}`),
    ...Object.keys(sessionStorage).map((name) => `sessionStorage ${name}`),
    ...(await indexedDB.databases()).map(({ name }) => `IndexedDB ${name}`),
    ...document.cookie.split('; ').filter(Boolean).map((cookie) => `a cookie for scripts: ${cookie}`),
  ]);
  return found.map((what) => `${page.url()} keeps ${what}`);
}

// No finding of axe that is serious or critical, in the theme that the page is shown in.
export async function accessible(page) {
  if (still.has(page.context())) return;
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const grave = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  assert.deepEqual(grave.map(({ id, help, nodes }) => ({ id, help, at: nodes.map((node) => `${node.target} ${node.failureSummary}`) })), [], `axe on ${page.url()}`);
}

// A page as wide as its window: nothing has to be scrolled sideways.
export async function fits(page) {
  const [wide, window, what] = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    const beyond = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > clientWidth + 1);
    return [scrollWidth, clientWidth, beyond.slice(0, 3).map((e) => e.outerHTML.slice(0, 120))];
  });
  assert.ok(wide <= window, `${page.url()} is ${wide} wide in a window of ${window}: ${what}`);
}

// Presses Tab until the element has the focus, as somebody without a mouse does.
export async function tabTo(page, element) {
  await element.waitFor();
  for (let presses = 0; presses < 200; presses += 1) {
    if (await element.evaluate((e) => e === document.activeElement)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`200 times Tab on ${page.url()} do not lead to ${element}`);
}

// The two pages of oidc-provider (authorization_server.mjs): who it is, and whether the client may.
export async function signInAtProvider(page, name) {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill('a password');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: 'Approve' }).click();
}
