// The TypeScript SDK's client, driven by a list of steps (see plans.py); prints what it saw as JSON.
//   node ts_client.mjs < {"modules": dir, "v1": bool, "url", "headers", "mode", "steps", "ask", "streamDeadline"}
// v1 is the package @modelcontextprotocol/sdk (initialize only), else @modelcontextprotocol/client.
import { createRequire } from 'node:module';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';

const { modules, v1, url, headers, mode, steps, ask, streamDeadline } = JSON.parse(await text(process.stdin));
const require = createRequire(path.join(modules, 'x.js'));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Client } = await load(v1 ? '@modelcontextprotocol/sdk/client/index.js' : '@modelcontextprotocol/client');
const { StreamableHTTPClientTransport } = await load(v1 ? '@modelcontextprotocol/sdk/client/streamableHttp.js' : '@modelcontextprotocol/client');
const schemas = v1 ? await load('@modelcontextprotocol/sdk/types.js') : {};

const notifications = [];
const asked = [];
let opened;
const streamOpen = new Promise((resolve, reject) => {
  opened = () => resolve(null);
  setTimeout(() => reject(new Error('no GET stream')), streamDeadline * 1000).unref();
});
streamOpen.catch(() => {}); // only a step that waits for it may fail
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers },
  fetch: async (target, init) => {
    const answer = await fetch(target, init);
    if (init?.method === 'GET' && answer.status === 200) opened();
    return answer;
  },
});
const client = new Client({ name: 'peers', version: '1.0.0' }, {
  capabilities: ask ? { sampling: {}, elicitation: {}, roots: {} } : {},
  ...(v1 ? {} : { versionNegotiation: { mode } }),
});
client.fallbackNotificationHandler = async (notification) => void notifications.push(notification);
client.onerror = (error) => console.error(error);
for (const [method, schema] of ask ? [['sampling/createMessage', schemas.CreateMessageRequestSchema], ['elicitation/create', schemas.ElicitRequestSchema], ['roots/list', schemas.ListRootsRequestSchema]] : []) {
  client.setRequestHandler(v1 ? schema : method, async (request) => {
    asked.push([method, request.params ?? null]);
    return ask[method];
  });
}

const run = {
  'tools/list': () => client.listTools(),
  'tools/call': async (name, args, meta) => {
    const progress = [];
    const params = { name, arguments: args, ...(meta && { _meta: meta }) };
    const options = { onprogress: (p) => progress.push(p) };
    return { result: v1 ? await client.callTool(params, undefined, options) : await client.callTool(params, options), progress };
  },
  'prompts/list': () => client.listPrompts(),
  'prompts/get': (name, args) => client.getPrompt({ name, arguments: args }),
  'resources/list': () => client.listResources(),
  'resources/templates/list': () => client.listResourceTemplates(),
  'resources/read': (uri) => client.readResource({ uri }),
  'resources/subscribe': (uri) => client.subscribeResource({ uri }),
  'completion/complete': (ref, argument) => client.complete({ ref, argument }),
  'logging/setLevel': (level) => client.setLoggingLevel(level),
  ping: () => client.ping(),
  'stream open': () => streamOpen,
  'wait for': async (method, count) => {
    while (notifications.filter((n) => n.method === method).length < count) await new Promise((r) => setTimeout(r, 10));
    return null;
  },
};

await client.connect(transport);
const connection = {
  version: v1 ? transport.protocolVersion : client.getNegotiatedProtocolVersion(), server: client.getServerVersion(),
  capabilities: client.getServerCapabilities(), instructions: client.getInstructions() ?? null,
};
const out = [];
for (const [what, ...args] of steps) {
  try {
    out.push(await run[what](...args));
  } catch (e) {
    if (typeof e.code !== 'number') throw e;
    out.push({ error: { code: e.code, message: e.message, data: e.data ?? null } });
  }
}
await transport.terminateSession();
await client.close();
process.stdout.write('\n' + JSON.stringify({ connection, steps: out, notifications, asked }), () => process.exit(0));
