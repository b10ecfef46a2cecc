// An MCP server, on the official SDK, that puts markup into every text it has a say in: its own name, its tools' names,
// titles, descriptions, schemas and results, its prompts and its resources (/mcp); and a provider that refuses everybody with
// markup for reasons (/authorize, /token, /register). Prints `listening on http://127.0.0.1:PORT`.
//   node hostile_server.mjs MODULES
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.argv[2], 'x.js'));
const { Server } = require('@modelcontextprotocol/sdk/server/index.js');
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
const types = require('@modelcontextprotocol/sdk/types.js');

// Breaks out of text, of either kind of attribute, of a script, a style and a comment; each way would open a dialog.
const evil = (at) => `${at}</title></style></script>--><script>alert('${at}')</script><img src=x onerror=alert(1)>"onfocus="alert(2)" autofocus='x' {{7*7}}`;
const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(3)"><script>alert(4)</script></svg>').toString('base64');

const tools = [
  {
    name: 'plain', title: evil('title'), description: evil('description'), annotations: { title: evil('annotation') },
    inputSchema: { type: 'object', title: evil('schema'), required: ['word'], properties: {
      word: { type: 'string', title: evil('field'), description: evil('help'), default: evil('default'), pattern: '(a+)+$' },
      pick: { type: 'string', enum: [evil('choice'), 'two'] },
      [evil('property')]: { type: 'integer', description: 'A property whose name is markup' },
    } },
  },
  { name: evil('tool'), description: 'A tool whose name is markup', inputSchema: { type: 'object' } },
];
const result = {
  content: [
    { type: 'text', text: evil('text') },
    { type: 'image', mimeType: 'image/svg+xml', data: svg },
    { type: 'image', mimeType: evil('image'), data: evil('data') },
    { type: 'resource_link', uri: 'javascript:alert(5)', name: evil('link'), description: evil('link') },
    { type: 'resource', resource: { uri: 'data:text/html,<script>alert(6)</script>', mimeType: 'text/html', text: evil('resource') } },
  ],
  structuredContent: { [evil('member')]: evil('value') },
};

function mcp() {
  const server = new Server({ name: evil('server'), title: evil('server'), version: evil('version') },
    { capabilities: { tools: {}, prompts: {}, resources: {} }, instructions: evil('instructions') });
  const on = (schema, answer) => server.setRequestHandler(schema, answer);
  on(types.ListToolsRequestSchema, () => ({ tools }));
  on(types.CallToolRequestSchema, ({ params }) => (params.name === 'plain' ? result : { isError: true, content: [{ type: 'text', text: evil('failure') }] }));
  on(types.ListPromptsRequestSchema, () => ({ prompts: [{ name: evil('prompt'), description: evil('prompt'), arguments: [{ name: evil('argument'), description: evil('argument') }] }] }));
  on(types.GetPromptRequestSchema, () => ({ messages: [{ role: 'user', content: { type: 'text', text: evil('message') } }] }));
  on(types.ListResourcesRequestSchema, () => ({ resources: [{ uri: 'javascript:alert(7)', name: evil('resource'), description: evil('resource'), mimeType: evil('mime') }] }));
  on(types.ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: [{ uriTemplate: evil('template'), name: evil('template') }] }));
  on(types.ReadResourceRequestSchema, () => ({ contents: [{ uri: 'javascript:alert(8)', mimeType: 'text/html', text: evil('contents') }] }));
  return server;
}

// RFC 6749 sections 4.1.2.1 and 5.2, with texts that neither allows.
const refusal = (at) => ({ error: evil(`${at} error`), error_description: evil(`${at} description`), error_uri: 'javascript:alert(9)' });

function provider(req, res) {
  const { pathname, searchParams } = new URL(req.url, 'http://127.0.0.1');
  if (pathname === '/authorize') {
    const back = new URL(searchParams.get('redirect_uri'));
    back.search = new URLSearchParams({ ...refusal('authorize'), state: searchParams.get('state') });
    return res.writeHead(302, { location: back.href }).end();
  }
  return res.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(refusal(pathname)));
}

// Stateless: each request has a server of its own.
const listener = http.createServer(async (req, res) => {
  if (!req.url.startsWith('/mcp')) return provider(req, res);
  const [server, transport] = [mcp(), new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true })];
  res.on('close', () => server.close());
  await server.connect(transport);
  await transport.handleRequest(req, res);
});
listener.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${listener.address().port}`));
