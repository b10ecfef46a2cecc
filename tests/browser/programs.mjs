// Child programs of a test: the gateway under test, what stands before and behind it, and a client of somebody else.
// Each prints `listening on URL` when it is ready, and ends with the test that started it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';

const HERE = import.meta.dirname;
export const ROOT = path.resolve(HERE, '../..');
const PEERS = path.resolve(process.env.VESTIBULE_PEERS ?? path.join(ROOT, '.peers')); // where setup.sh installed
const MODULES = path.join(PEERS, 'node_modules');
const PYTHON = path.join(PEERS, 'venv/bin/python');
const ours = (name) => path.join(ROOT, 'tests/peers', name);

export const installed = createRequire(path.join(PEERS, 'browser/x.js'));
export const DEADLINE = 30_000; // for a start, a stop, or one client
export const MASTER_KEY = 'sk-canary-master-9d41c06e7b52';

export function binary() {
  const named = process.env.VESTIBULE_BIN;
  assert.ok(named, 'VESTIBULE_BIN is not set: it must hold the path of the gateway program.');
  return path.resolve(named);
}

const opened = new WeakMap();

// What a test opened is closed with it, the last first; `t` may be a whole file's `{ after }`.
export function closing(t, close) {
  if (!opened.has(t)) {
    const stack = [];
    opened.set(t, stack);
    t.after(async () => {
      const failures = [];
      while (stack.length) await Promise.resolve().then(stack.pop()).catch((e) => failures.push(e));
      if (failures.length) throw failures.length === 1 ? failures[0] : new AggregateError(failures, failures.join('\n'));
    });
  }
  opened.get(t).push(close);
}

export function directory(t) {
  const made = mkdtempSync(path.join(os.tmpdir(), 'vestibule-browser-'));
  closing(t, () => rmSync(made, { recursive: true, force: true }));
  return made;
}

// The machine's own settings of proxies, databases and gateways are none of a test's.
function environment(more) {
  const kept = Object.entries(process.env).filter(([name]) => !/_proxy$/i.test(name) && !/^(VESTIBULE|LITELLM|PROXY_BASE|DATABASE|NODE_TEST)/.test(name));
  return { ...Object.fromEntries(kept), ...more };
}

class Program {
  static async start(name, argv, { cwd, env } = {}) {
    const one = new Program();
    one.name = name;
    one.log = '';
    one.child = spawn(argv[0], argv.slice(1), { cwd, env: environment(env), stdio: ['pipe', 'pipe', 'pipe'] });
    one.ended = once(one.child, 'close');
    one.child.stderr.setEncoding('utf8').on('data', (part) => (one.log += part));
    one.lines = createInterface(one.child.stdout).on('line', (line) => (one.log += `${line}\n`));
    one.url = await one.says(/^listening on (https?:\/\/(?:127\.0\.0\.1|localhost):\d+)\/?$/);
    return one;
  }

  // Waits for a line of standard output; gives its first group.
  says(pattern) {
    return new Promise((resolve, reject) => {
      const failed = (why) => {
        clearTimeout(late);
        reject(new Error(`${this.name} ${why}. Its output:\n${this.log}`));
      };
      const late = setTimeout(() => failed(`did not say ${pattern}`), DEADLINE);
      this.child.once('error', (e) => failed(`did not start: ${e.message}`));
      this.child.once('close', (code) => failed(`ended with ${code}`));
      this.lines.on('line', (line) => {
        const found = pattern.exec(line);
        if (!found) return;
        clearTimeout(late);
        resolve(found[1]);
      });
    });
  }

  async stop(signal = 'SIGKILL') {
    this.child.kill(signal);
    const late = setTimeout(() => this.child.kill('SIGKILL'), DEADLINE);
    const [code] = await this.ended;
    clearTimeout(late);
    return code;
  }
}

async function started(t, name, argv, options) {
  const program = await Program.start(name, argv, options);
  closing(t, () => program.stop());
  return program;
}

// `vestibule serve`. With the test it has to end cleanly, and its log must not hold the master key or any of `secrets`.
export async function gateway(t, config, { publicOrigin, env = {}, at = directory(t) } = {}) {
  writeFileSync(path.join(at, 'config.yaml'), config);
  const own = { HOME: at, XDG_CONFIG_HOME: at, ...(publicOrigin && { PROXY_BASE_URL: publicOrigin }), ...env };
  const argv = [binary(), 'serve', '--config', path.join(at, 'config.yaml'), '--host', '127.0.0.1', '--port', '0'];
  const program = await Program.start('the gateway', argv, { cwd: at, env: own });
  program.directory = at;
  program.secrets = [MASTER_KEY];
  closing(t, async () => {
    const code = await program.stop('SIGTERM');
    assert.equal(code, 0, `the gateway ended with ${code}:\n${program.log}`);
    const shown = program.secrets.filter((secret) => program.log.includes(secret));
    assert.deepEqual(shown, [], 'the gateway wrote secrets to its log');
  });
  return program;
}

// The program's own authorization server and MCP server, for machine tokens.
export const mock = (t) => started(t, 'the mock', [binary(), 'mock', '--port', '0']);

// oidc-provider; the options are those of authorization_server.mjs.
export const provider = (t, ...options) =>
  started(t, 'the authorization server', [process.execPath, ours('authorization_server/authorization_server.mjs'), MODULES, ...options]);

// An MCP server that takes only the tokens of that provider.
export const protectedServer = (t, { url }, ...options) =>
  started(t, 'the protected server', [PYTHON, ours('protected_server.py'), '--issuer', url, ...options]);

// @modelcontextprotocol/server-everything: tools with pictures and structured content, prompts, resources.
export const everything = (t) =>
  started(t, 'server-everything', [process.execPath, ours('everything.mjs'), path.join(MODULES, '@modelcontextprotocol/server-everything/dist/transports/streamableHttp.js')]);

export const hostileServer = (t) => started(t, 'the hostile server', [process.execPath, path.join(HERE, 'hostile_server.mjs'), MODULES]);

// nginx with docs/nginx.conf. It has its `url` before it serves, because the gateway behind it may have to know that.
export async function nginx(t, { tls = true } = {}) {
  const program = await started(t, 'nginx', [PYTHON, ours('nginx.py'), directory(t), ...(tls ? [] : ['--no-tls'])]);
  program.serve = (upstream) => {
    program.child.stdin.write(`${upstream.url}\n`);
    return program.says(/^(serving)$/);
  };
  program.stop = async () => {
    program.child.stdin.end(); // the sign to stop nginx, which is a child of that program
    await program.ended;
  };
  return program;
}

// The official TypeScript SDK's client: what each step gave (see ts_client.mjs). Throws when it could not connect.
export async function sdkClient(url, key, steps = [['tools/list']]) {
  const child = spawn(process.execPath, [ours('clients/ts_client.mjs')], { env: environment(), stdio: 'pipe', timeout: DEADLINE });
  child.stdin.end(JSON.stringify({ modules: MODULES, v1: true, url, headers: { 'x-litellm-api-key': `Bearer ${key}` }, mode: 'legacy', steps, ask: null, streamDeadline: 10 }));
  const [out, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  if (code !== 0) throw new Error(`the client failed:\n${errors}`);
  return JSON.parse(out.trimEnd().split('\n').at(-1)).steps;
}

export async function toolNames(url, key) {
  const [{ tools }] = await sdkClient(url, key);
  return tools.map((tool) => tool.name).sort();
}

// Management calls, for what a test needs but does not show.
export async function api(at, method, route, body, key = MASTER_KEY) {
  const answer = await fetch(`${at.url}${route}`, {
    method,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  });
  const told = await answer.text();
  return { status: answer.status, body: told ? JSON.parse(told) : null };
}
