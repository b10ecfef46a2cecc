// Two grants for oidc-provider: RFC 8693 token exchange, which gives an access token for another resource or an
// identity assertion grant, and the RFC 7523 JWT bearer grant, which takes such an assertion once. Strict: what a
// request must not have is refused.
import crypto from 'node:crypto';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const kind = (name) => `urn:ietf:params:oauth:token-type:${name}`;

// issuer: ours. key: a private JWK of it. trusted: issuers whose assertions we take, beside our own tokens.
// assertionClient: the client id that an assertion for another authorization server is made out to.
export function registerGrants(provider, { errors, jose, issuer, key, trusted, assertionClient, lifetime }) {
  const { SignJWT, createLocalJWKSet, createRemoteJWKSet, importJWK, jwtVerify } = jose;
  const { kty, n, e, kid, alg } = key;
  const ours = createLocalJWKSet({ keys: [{ kty, n, e, kid, alg }] });
  const theirs = new Map(trusted.map((one) => [one, createRemoteJWKSet(new URL(`${one}/jwks`))]));
  const redeemed = new Set();

  const signed = async (typ, seconds, { sub, aud, ...claims }) => {
    const at = Math.floor(Date.now() / 1000);
    return new SignJWT({ jti: crypto.randomUUID(), ...claims }).setProtectedHeader({ alg, kid, typ })
      .setIssuer(issuer).setSubject(sub).setAudience(aud).setIssuedAt(at).setExpirationTime(at + seconds).sign(await importJWK(key, alg));
  };
  const refuse = (why) => { throw new errors.InvalidGrant('the presented token does not count', why); };
  const bearer = async (sub, aud, scope, more) => ({
    access_token: await signed('at+jwt', lifetime, { sub, aud, scope, ...more }), token_type: 'Bearer', expires_in: lifetime, scope,
  });

  provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
    const { subject_token: token, subject_token_type: type, requested_token_type: wanted, audience, resource, scope } = ctx.oidc.params;
    const client = ctx.oidc.client.clientId;
    const { payload: subject } = await jwtVerify(token, ours, { issuer }).catch((fault) => refuse(fault.message));
    if (wanted === kind('id-jag')) {
      if (type !== kind('id_token') || ![subject.aud].flat().includes(client)) refuse('no identity token of this client');
      if (!audience) throw new errors.InvalidRequest('audience is missing');
      ctx.body = { issued_token_type: kind('id-jag'), token_type: 'N_A', expires_in: 300, scope,
        access_token: await signed('oauth-id-jag+jwt', 300, { sub: subject.sub, aud: audience, client_id: assertionClient, resource, scope }) };
      return;
    }
    if (type !== kind('access_token')) refuse('no access token');
    if (!resource) throw new errors.InvalidTarget('resource is missing');
    ctx.body = { issued_token_type: kind('access_token'), ...await bearer(subject.sub, resource, scope, { act: { sub: client } }) };
  }, ['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'actor_token_type', 'audience', 'resource', 'scope']);

  provider.registerGrantType(JWT_BEARER, async (ctx) => {
    const { assertion, scope } = ctx.oidc.params;
    const from = JSON.parse(Buffer.from(String(assertion).split('.')[1] ?? '', 'base64url').toString() || '{}').iss;
    if (!theirs.has(from)) refuse(`${from} is not trusted`);
    const { payload } = await jwtVerify(assertion, theirs.get(from), { issuer: from, audience: issuer, typ: 'oauth-id-jag+jwt' })
      .catch((fault) => refuse(fault.message));
    if (payload.client_id !== ctx.oidc.client.clientId) refuse('it was made out to another client');
    if (redeemed.has(payload.jti)) refuse('it was redeemed before');
    redeemed.add(payload.jti);
    const allowed = (payload.scope ?? '').split(' ');
    const granted = (scope ?? payload.scope ?? '').split(' ').filter((one) => allowed.includes(one)).join(' ');
    ctx.body = await bearer(payload.sub, payload.resource, granted, { act: { sub: payload.client_id } });
  }, ['assertion', 'scope']);
}
