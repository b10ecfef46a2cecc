// The console as a person works it: by the words on its pages.
import assert from 'node:assert/strict';
import { MASTER_KEY } from './programs.mjs';

// Signs in; `user` is who the holder of the master key is.
export async function signIn(page, at, { key = MASTER_KEY, user } = {}) {
  await page.goto(`${at.url}/ui`);
  await page.getByLabel('Gateway key').fill(key);
  if (user) await page.getByLabel('Your user id').fill(user);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('navigation', { name: 'Console' }).waitFor();
}

// One part of the console, by its word in the navigation.
export async function open(page, part) {
  await page.getByRole('navigation', { name: 'Console' }).getByRole('link', { name: part, exact: true }).click();
  await page.getByRole('heading', { level: 1 }).waitFor();
}

// The text of what a page says once about the last form.
export const said = (page) => page.getByRole('status').first().innerText();

// Every page that links lead to from here, once each, and what `look` finds on it. Of one page with several queries three
// are enough. `skip` says which links are not pages.
export async function crawl(page, look, skip = () => false) {
  const origin = new URL(page.url()).origin;
  const [queue, found, queries] = [[page.url()], new Set(), new Map()];
  while (queue.length) {
    const url = new URL(queue.shift());
    const asked = queries.get(url.pathname) ?? 0;
    if (found.has(url.pathname + url.search) || asked >= 3 || skip(url)) continue;
    found.add(url.pathname + url.search);
    queries.set(url.pathname, asked + 1);
    const answer = await page.goto(url.href);
    assert.equal(answer.status(), 200, `${url.pathname} answers ${answer.status()}`);
    await look(page);
    const links = await page.locator('a[href]:not([download])').evaluateAll((all) => all.map((a) => a.href));
    queue.push(...links.map((link) => link.split('#')[0]).filter((link) => link.startsWith(`${origin}/ui`)));
  }
  return [...found];
}

// A field that is shown, by its label; what marks it as required is not part of that.
export const field = (page, label) => {
  const exactly = label.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return page.getByLabel(new RegExp(`^\\s*${exactly}(\\s+required)?\\s*$`)).filter({ visible: true });
};

// Chooses in a form whose fields depend on it; where no script shows them, a button does.
export async function choose(page, label, option) {
  const radio = page.getByRole('group', { name: label }).getByRole('radio', { name: option, exact: true });
  await radio.or(field(page, label)).waitFor();
  if (await radio.isVisible()) await radio.check();
  else await field(page, label).selectOption({ label: option });
  const show = page.getByRole('button', { name: 'Show fields' });
  if (await show.isVisible()) await show.click();
}

// The seed's walk-through up to Create: `choices` and `values` are by label, in the order of the form.
export async function fillServer(page, name, url, choices, values) {
  await open(page, 'Servers');
  await page.getByRole('link', { name: 'Add New MCP Server' }).click();
  await field(page, 'MCP Server Name').fill(name);
  await choose(page, 'Transport Type', 'HTTP (Streamable HTTP, recommended)');
  await field(page, 'MCP Server URL').fill(url);
  for (const [label, option] of choices) await choose(page, label, option);
  for (const [label, value] of values) await field(page, label).fill(value);
}

export async function addServer(page, name, url, choices, values) {
  await fillServer(page, name, url, choices, values);
  await createServer(page);
}

export const createServer = (page) => page.getByRole('button', { name: 'Create MCP Server' }).click();
