// An OAuth 2.1 and OpenID authorization server on npm `oidc-provider`, with a login form and a consent
// form for a browser. Listens on 127.0.0.1 and prints `listening on http://127.0.0.1:PORT`.
//
//   node authorization_server.mjs MODULES [--port 0] [--issuer-path /tenant] [--access-ttl 3600] [--refresh-ttl 86400]
//     [--deny]                   every consent is answered with access_denied
//     [--strict-offline]         a refresh token only for the scope offline_access
//     [--no-resource-indicators] `resource` is ignored, tokens have no audience
//     [--no-registration --client-id ID --client-secret SECRET --redirect-uri URI...]
//
//     [--exchange --client-id ID --client-secret SECRET [--trust ISSUER]... [--assertion-client ID]]
//                                token exchange and JWT bearer for that client (grants.mjs); access tokens are signed
//
// PKCE is required, refresh tokens rotate, and the second use of one ends its grant. Access tokens are otherwise
// opaque, so that revoking counts at once; the client `resource-server` introspects them.
// For the tests there is also /control (see below): what was asked, a clock to move, one more redirect URI.
import crypto from 'node:crypto';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { JWT_BEARER, TOKEN_EXCHANGE, registerGrants } from './grants.mjs';

const args = process.argv.slice(3);
const value = (name, other) => (args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : other);
const values = (name) => args.flatMap((a, i) => (a === `--${name}` ? [args[i + 1]] : []));
const flag = (name) => args.includes(`--${name}`);

const SCOPES = ['mcp:tools', 'mcp:write'];
const accessTtl = Number(value('access-ttl', 3600));
const mount = value('issuer-path', '');
const exchange = flag('exchange');
const registration = !flag('no-registration') && !exchange;
const moreRedirectUris = new Set();
const requests = [];
const events = [];

// The clock of this process; moving it is how tokens grow old without anybody waiting.
const now = Date.now.bind(Date);
let ahead = 0;
Date.now = () => now() + ahead;

const require = createRequire(path.join(process.argv[2], 'x.js'));
const { default: Provider, errors } = await import(pathToFileURL(require.resolve('oidc-provider')).href);
const server = http.createServer();
await new Promise((done) => server.listen(Number(value('port', 0)), '127.0.0.1', done));
const origin = `http://127.0.0.1:${server.address().port}`;
const issuer = origin + mount;

const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'RS256' };
const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [
    { client_id: 'resource-server', client_secret: 'resource-server-secret', redirect_uris: [], response_types: [], grant_types: ['client_credentials'] },
    ...(registration ? [] : [{ client_id: value('client-id'), client_secret: value('client-secret'), redirect_uris: values('redirect-uri').concat(`${origin}/no-client-here`),
      token_endpoint_auth_method: 'client_secret_post', grant_types: ['authorization_code', 'refresh_token', ...(exchange ? [TOKEN_EXCHANGE, JWT_BEARER] : [])], response_types: ['code'] }]),
  ],
  scopes: ['openid', 'offline_access', ...SCOPES],
  claims: { openid: ['sub'] },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  pkce: { required: () => true },
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post'],
  ttl: { AccessToken: accessTtl, ClientCredentials: 3600, AuthorizationCode: 60, RefreshToken: Number(value('refresh-ttl', 86400 * 30)),
    Grant: 86400 * 365, Session: 86400 * 365, Interaction: 3600, IdToken: 3600 },
  issueRefreshToken: (ctx, client, code) => client.grantTypeAllowed('refresh_token') && (!flag('strict-offline') || code.scopes.has('offline_access')),
  rotateRefreshToken: true,
  expiresWithSession: () => false,
  cookies: { keys: [crypto.randomBytes(16).toString('hex')] },
  clientBasedCORS: () => true,
  interactions: { url: (ctx, interaction) => `${mount}/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: registration },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: !flag('no-resource-indicators'),
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({ scope: SCOPES.join(' '), audience: resource, accessTokenTTL: accessTtl,
        ...(exchange ? { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } } : { accessTokenFormat: 'opaque' }) }),
    },
  },
});
provider.proxy = false;
if (exchange) {
  const jose = await import(pathToFileURL(require.resolve('jose')).href);
  registerGrants(provider, { errors, jose, issuer, key, trusted: values('trust'), assertionClient: value('assertion-client'), lifetime: accessTtl });
}

// A configured client may be given redirect URIs later, as in a console: a gateway knows its port when it runs.
const { redirectUriAllowed } = provider.Client.prototype;
provider.Client.prototype.redirectUriAllowed = function allowed(uri, ...more) {
  return (this.clientId === value('client-id') && moreRedirectUris.has(uri)) || redirectUriAllowed.call(this, uri, ...more);
};

provider.use(async (ctx, next) => {
  const found = { method: ctx.method, path: ctx.req.originalUrl ?? ctx.req.url, headers: { ...ctx.headers } };
  requests.push(found);
  await next();
  found.status = ctx.status;
  found.body = ctx.oidc?.body ?? null;
  found.answer = ctx.body && Object.getPrototypeOf(ctx.body) === Object.prototype ? ctx.body : null;
});
for (const name of ['registration_create.success', 'grant.success', 'grant.error', 'grant.revoked', 'authorization.success', 'authorization.error',
  'access_token.issued', 'access_token.saved', 'access_token.destroyed', 'refresh_token.saved', 'refresh_token.consumed', 'refresh_token.destroyed', 'server_error']) {
  provider.on(name, (first, second) => {
    const error = [first, second].find((x) => x instanceof Error);
    if (name === 'server_error') console.error(error);
    events.push({ name, grant_type: first?.oidc?.params?.grant_type ?? null, client_id: first?.oidc?.client?.clientId ?? first?.clientId ?? null,
      error: error?.error ?? error?.message ?? null, detail: error?.error_detail ?? error?.error_description ?? null });
  });
}

const escape = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const page = (res, title, body) => res.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store', 'x-frame-options': 'DENY' })
  .end(`<!doctype html><html><head><title>${escape(title)}</title></head><body><h1>${escape(title)}</h1>${body}</body></html>`);
const csrf = new Map();

async function form(req) {
  let raw = '';
  for await (const part of req) raw += part;
  return req.headers['content-type']?.startsWith('application/json') ? JSON.parse(raw || '{}') : Object.fromEntries(new URLSearchParams(raw));
}

async function interaction(req, res) {
  const { uid, prompt, params, session, grantId } = await provider.interactionDetails(req, res);
  const at = `${mount}/interaction/${uid}`;
  if (req.method === 'GET') {
    csrf.set(uid, crypto.randomUUID());
    const hidden = `<input type="hidden" name="csrf" value="${csrf.get(uid)}">`;
    if (prompt.name === 'login') {
      return page(res, 'Sign in', `<form method="post" action="${at}/login" autocomplete="off">${hidden}<label>Name <input type="text" name="login" required></label>`
        + '<label>Password <input type="password" name="password" required></label><button type="submit">Sign in</button></form>');
    }
    return page(res, 'Allow access?', `<p>${escape(params.client_id)} asks for ${escape(params.scope)}</p><form method="post" action="${at}/consent">${hidden}`
      + '<button type="submit" name="decision" value="deny">Deny</button><button type="submit" name="decision" value="approve">Approve</button></form>');
  }
  const fields = await form(req);
  if (!fields.csrf || fields.csrf !== csrf.get(uid)) return res.writeHead(403).end('csrf');
  if (req.url.endsWith('/login')) {
    if (!fields.login || !fields.password) return res.writeHead(400).end('name and password');
    return provider.interactionFinished(req, res, { login: { accountId: fields.login } });
  }
  if (flag('deny') || fields.decision !== 'approve') {
    return provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'The user said no' });
  }
  const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  for (const [resource, missing] of Object.entries(prompt.details.missingResourceScopes ?? {})) grant.addResourceScope(resource, missing.join(' '));
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

// GET  /control                the log: {requests, events}
// POST /control/advance        {"seconds": n}: moves the clock; past the TTL every access token is expired
// POST /control/redirect-uris  {"uri": u}: one more redirect URI of the configured client
async function control(req, res) {
  const asked = req.method === 'POST' ? await form(req) : {};
  if (req.url === '/control/advance') ahead += asked.seconds * 1000;
  if (req.url === '/control/redirect-uris') moreRedirectUris.add(asked.uri);
  res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(req.method === 'GET' ? { requests, events } : {}));
}

const oauth = provider.callback();
server.on('request', (req, res) => {
  const failed = (e) => {
    console.error(e);
    res.writeHead(400, { 'content-type': 'text/plain' }).end(String(e));
  };
  if (req.url.startsWith('/control')) return control(req, res).catch(failed);
  if (req.url.startsWith(`${mount}/interaction/`)) return interaction(req, res).catch(failed);
  if (mount) { // The two spellings of the metadata's address: RFC 8414 inserts, OpenID appends.
    const inserted = req.url.match(/^(\/\.well-known\/[^/]+)(\/.*)$/);
    if (inserted?.[2] === mount) {
      req.originalUrl = `${mount}${inserted[1]}`;
      req.url = inserted[1];
    } else if (req.url.startsWith(`${mount}/`)) {
      req.originalUrl = req.url;
      req.url = req.url.slice(mount.length);
    } else return res.writeHead(404).end();
  }
  // Clients leave `scope` out when nothing told them one.
  if (req.url.startsWith('/auth?') && !new URL(req.url, issuer).searchParams.get('scope')) req.url += `&scope=${encodeURIComponent(SCOPES[0])}`;
  return oauth(req, res);
});
console.log(`listening on ${origin}`);
