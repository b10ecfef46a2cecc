#!/usr/bin/env node
// Walks through the README's "Quick start" as somebody new does: on a clean checkout of HEAD, in one terminal, pasting each
// block of it in turn. The commands are read out of the README; nothing is repeated here but what has to come of them.
//
// Usage: VESTIBULE_BIN=target/debug/vestibule scripts/test.d/readme-walk.mjs   (.peers/ has to be set up)
// With VESTIBULE_BIN the build step gets that program instead of compiling for minutes; without, it is run as written.
// Changed by the walk: port 4000 and 8765 are free ports, `sk-...` is the key that was made before, and `claude` is the
// official TypeScript SDK's client, which is given the address and the header of that line.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../..');
const PEERS = path.resolve(process.env.VESTIBULE_PEERS ?? path.join(ROOT, '.peers'));
const DEADLINE = 30_000;
const place = mkdtempSync(path.join(os.tmpdir(), 'vestibule-readme-'));
const checkout = path.join(place, 'vestibule');

// A shell that commands are pasted into, and all that it printed.
class Terminal {
  constructor() {
    const kept = Object.entries(process.env).filter(([name]) => !/^(VESTIBULE|LITELLM|PROXY_BASE|DATABASE|NODE_TEST)/.test(name));
    const env = { ...Object.fromEntries(kept), HOME: place, PATH: `${path.join(place, 'bin')}:${process.env.PATH}`, NO_PROXY: '*' };
    this.shell = spawn('bash', ['-m'], { cwd: checkout, env, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
    this.seen = '';
    this.waiting = new Set();
    for (const stream of [this.shell.stdout, this.shell.stderr]) {
      stream.setEncoding('utf8').on('data', (part) => {
        this.seen += part;
        for (const look of this.waiting) look();
      });
    }
  }

  // Pastes text; gives what was printed from there on, once `pattern` is in it.
  paste(text, pattern) {
    const from = this.seen.length;
    this.shell.stdin.write(`${text}\n`);
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ${pattern} after\n${text}\nbut\n${this.seen.slice(from)}`)), DEADLINE);
      const look = () => {
        if (!pattern.test(this.seen.slice(from))) return;
        clearTimeout(late);
        this.waiting.delete(look);
        resolve(this.seen.slice(from));
      };
      this.waiting.add(look);
      look();
    });
  }

  // Pastes commands that end; gives what they printed. One that fails fails the walk.
  async run(text) {
    const out = await this.paste(`${text}\nprintf '\\nended with %s\\n' $?`, /^ended with \d+$/m);
    assert.match(out, /^ended with 0$/m, `${text}\n${out}`);
    return out.slice(0, out.lastIndexOf('ended with'));
  }

  async close() {
    const ended = once(this.shell, 'close');
    this.shell.stdin.end('kill $(jobs -p) 2>/dev/null; wait; exit\n');
    const late = setTimeout(() => this.shell.kill('SIGKILL'), DEADLINE);
    await ended;
    clearTimeout(late);
  }
}

// The blocks of one section: their language, text, and the heading of the part they stand in.
function blocks(readme, section) {
  const start = readme.indexOf(`\n## ${section}\n`);
  assert.ok(start >= 0, `the README has no "${section}"`);
  const end = readme.indexOf('\n## ', start + 4);
  let part = '';
  const found = [];
  for (const [, heading, language, text] of readme.slice(start, end).matchAll(/^### ([^\n]+)$|^```(\w+)\n(.*?)^```$/gms)) {
    if (heading) part = heading;
    else found.push({ part, language, text: text.trimEnd() });
  }
  return found;
}

// What `claude mcp add` is on this machine: an SDK client that lists the tools and calls one.
function claude() {
  const client = path.join(ROOT, 'tests/peers/clients/ts_client.mjs');
  writeFileSync(path.join(place, 'bin/claude'), `#!${process.execPath}
const [, , mcp, add, flag, transport, name, url, header, value, ...rest] = process.argv;
if (\`\${mcp} \${add} \${flag} \${transport} \${header}\` !== 'mcp add --transport http --header' || rest.length) throw new Error(process.argv.join(' '));
const at = value.indexOf(': ');
const job = { modules: ${JSON.stringify(path.join(PEERS, 'node_modules'))}, v1: true, url, headers: { [value.slice(0, at)]: value.slice(at + 2) }, mode: 'legacy',
  steps: [['tools/list'], ['tools/call', 'echo', { message: 'hello from a client' }]], ask: null, streamDeadline: 10 };
process.stdout.write(require('node:child_process').execFileSync(process.execPath, [${JSON.stringify(client)}], { input: JSON.stringify(job) }));
`);
  chmodSync(path.join(place, 'bin/claude'), 0o755);
}

async function walk(terminal) {
  const steps = blocks(readFileSync(path.join(checkout, 'README.md'), 'utf8'), 'Quick start');
  const known = []; // what the walk knows better than the text: [pattern, replacement]
  const next = (part, language, start) => {
    const step = steps.shift();
    assert.ok(step && step.part === part && step.language === language && step.text.startsWith(start),
      `the walk is at "${part}", a ${language} block that starts with "${start}", and the README at ${JSON.stringify(step)}`);
    return known.reduce((text, [pattern, better]) => text.replaceAll(pattern, better), step.text);
  };
  const serves = (text) => {
    assert.match(text, /--port \d+ &$/);
    return text.replace(/--port \d+ &$/, '--port 0 &');
  };
  const READY = /^listening on (http:\/\/\S+:(\d+))$/m;

  const build = next('Build', 'sh', 'cargo build --release\n');
  if (process.env.VESTIBULE_BIN) {
    mkdirSync(path.join(checkout, 'target/release'), { recursive: true });
    symlinkSync(path.resolve(process.env.VESTIBULE_BIN), path.join(checkout, 'target/release/vestibule'));
    await terminal.run(build.replace('cargo build --release\n', ''));
  } else await terminal.run(build);
  assert.match(await terminal.run('command -v vestibule'), new RegExp(`^${checkout}/target/release/vestibule$`, 'm'));

  // In the background, because the next lines are pasted into the same terminal.
  const told = await terminal.paste(`${next('See it work', 'sh', 'vestibule demo')} --port 0 &`, /Serving until Ctrl-C/);
  const [listed, called, debugged] = told.replaceAll('\\\n', ' ').match(/^ {2}curl .*$/gm);
  assert.match(await terminal.run(listed), /"name":"echo"/);
  assert.match(await terminal.run(called), /"text":"hello"/);
  assert.match(await terminal.run(debugged), /x-mcp-debug-auth-resolution: m2m-client-credentials/i);
  assert.match(await terminal.run(told.match(/^ {2}claude .*$/m)[0]), /hello from a client/);
  await terminal.run('kill -INT %1; wait %1');

  const mock = await terminal.paste(serves(next('Your first server', 'sh', 'vestibule mock')), READY);
  known.push(['8765', READY.exec(mock)[2]]);
  writeFileSync(path.join(checkout, 'config.yaml'), next('Your first server', 'yaml', 'general_settings:'));
  const [settings, check, serve] = next('Your first server', 'sh', 'export LITELLM_MASTER_KEY').split(/\n(?=vestibule )/);
  await terminal.run(settings);
  assert.doesNotMatch(await terminal.run(check), /warning|error/i);
  const gateway = await terminal.paste(serves(serve), READY);
  known.push(['localhost:4000', `localhost:${READY.exec(gateway)[2]}`]);

  const made = await terminal.run(next('Your first key', 'sh', 'curl'));
  const key = /"key":\s*"(sk-[\w-]{20,})"/;
  assert.match(made, key);
  known.push(['sk-...', key.exec(made)[1]]);

  const connected = await terminal.run(next('Your first client', 'sh', 'export VESTIBULE_KEY=sk-...\nclaude mcp add'));
  assert.match(connected, /"name":"echo".*hello from a client/);
  const used = await terminal.run(next('Your first client', 'sh', 'curl'));
  assert.match(used, /hello/);
  await terminal.run(next('Your first client', 'sh', 'kill'));
  assert.deepEqual(steps, [], 'the README goes on where the walk ends');
}

try {
  execFileSync('git', ['clone', '--quiet', '--shared', ROOT, checkout]);
  mkdirSync(path.join(place, 'bin'));
  claude();
  const terminal = new Terminal();
  try {
    await walk(terminal);
  } finally {
    await terminal.close();
  }
  console.log('The README\'s quick start works as it is written.');
} finally {
  rmSync(place, { recursive: true, force: true });
}
