// Sign-in through the TypeScript SDK's OAuthClientProvider (see driver.py for arguments and output).
//   node typescript_sdk.mjs URL [--key KEY] [--expire URL/control] [--v1]
// --v1 takes the package @modelcontextprotocol/sdk, else it is @modelcontextprotocol/client. $MODULES names node_modules.
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const args = process.argv.slice(3);
const url = new URL(process.argv[2]);
const value = (name) => (args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : undefined);
const v1 = args.includes('--v1');
const require = createRequire(path.join(process.env.MODULES, 'x.js'));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Client } = await load(v1 ? '@modelcontextprotocol/sdk/client/index.js' : '@modelcontextprotocol/client');
const { StreamableHTTPClientTransport } = await load(v1 ? '@modelcontextprotocol/sdk/client/streamableHttp.js' : '@modelcontextprotocol/client');
const { UnauthorizedError } = await load(v1 ? '@modelcontextprotocol/sdk/client/auth.js' : '@modelcontextprotocol/client');

// The loopback listener of a native client.
let answered;
const answer = new Promise((resolve) => { answered = resolve; });
const listener = http.createServer((req, res) => {
  res.writeHead(200, { 'content-type': 'text/html', connection: 'close' }).end('Signed in');
  answered(new URL(req.url, 'http://localhost').searchParams);
});
await new Promise((done) => listener.listen(0, '127.0.0.1', done));
const redirectUrl = `http://127.0.0.1:${listener.address().port}/callback`;

let tokens, verifier, discovery, clientInformation, state;
const provider = {
  redirectUrl,
  clientMetadata: { client_name: 'TypeScript SDK', redirect_uris: [redirectUrl], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], token_endpoint_auth_method: 'none' },
  state: () => (state = crypto.randomUUID()),
  clientInformation: () => clientInformation,
  saveClientInformation: (info) => void (clientInformation = info),
  tokens: () => tokens,
  saveTokens: (t) => void (tokens = t),
  saveCodeVerifier: (v) => void (verifier = v),
  codeVerifier: () => verifier,
  saveDiscoveryState: (d) => void (discovery = d),
  discoveryState: () => discovery,
  redirectToAuthorization: (to) => void spawn(process.env.BROWSER, [to.href], { stdio: 'ignore' }),
};

async function connect(signedIn) {
  const client = new Client({ name: 'peers', version: '1.0.0' }, v1 ? {} : { versionNegotiation: { mode: 'auto' } });
  const transport = new StreamableHTTPClientTransport(url, { authProvider: provider, requestInit: { headers: value('key') ? { 'x-litellm-api-key': `Bearer ${value('key')}` } : {} } });
  try {
    await client.connect(transport);
    return client;
  } catch (e) {
    if (!(e instanceof UnauthorizedError) || signedIn) throw e;
    const got = await answer;
    if (got.get('error')) throw new Error(`the answer to the sign-in: ${JSON.stringify(Object.fromEntries(got))}`);
    if (got.get('state') !== state) throw new Error('another state came back');
    await transport.finishAuth(v1 ? got.get('code') : got);
    return connect(true);
  }
}

const client = await connect(false);
const call = async (name, input) => (await client.callTool({ name, arguments: input })).content[0].text;
const round = async () => ({ echo: await call('echo', { message: 'Grüße – 你好' }), add: Number(await call('add', { a: 2.5, b: 40 })), whoami: await call('whoami', {}) });
const seen = { tools: (await client.listTools()).tools.map((t) => t.name).sort(), first: await round() };
if (value('expire')) {
  await fetch(`${value('expire')}/advance`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ seconds: 7200 }) });
  seen.second = await round();
}
seen.protocol = client.getNegotiatedProtocolVersion?.() ?? null;
seen.scope = tokens?.scope ?? null;
await client.close();
listener.close();
process.stdout.write(JSON.stringify(seen), () => process.exit(0));
