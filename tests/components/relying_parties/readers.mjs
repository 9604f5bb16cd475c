#!/usr/bin/env node
// Presents tokens to a library that keeps what it has read, as a service does that runs for long.
//
//     readers.mjs LIBRARY AUDIENCE
//
// Reads lines from stdin: an issuer and a token of it, answered with a line `accepted` or `refused` and why; or `+`
// and a number of seconds by which the clocks that JavaScript reads are put forward, answered with `later`. Which
// certificates are trusted says NODE_EXTRA_CA_CERTS.

import { createInterface } from 'node:readline'

// Before the libraries are read, which may take the functions away.
let ahead = 0
for (const clock of [Date, performance]) {
  const now = clock.now.bind(clock)
  clock.now = () => now() + ahead
}

const [library, audience] = process.argv.slice(2)

// For libraries that leave the discovery document to the program.
async function jwksUri(issuer) {
  const answer = await fetch(`${issuer}/.well-known/openid-configuration`)
  return (await answer.json()).jwks_uri
}

// Each is set up when the first token of an issuer comes, and again with the next one as long as that fails.
const libraries = {
  async jose(issuer) {
    const { createRemoteJWKSet, jwtVerify } = await import('jose')
    const keys = createRemoteJWKSet(new URL(await jwksUri(issuer)))
    return (token) => jwtVerify(token, keys, { issuer, audience })
  },

  async 'jwks-rsa'(issuer) {
    const { default: jwksRsa } = await import('jwks-rsa')
    const { default: jwt } = await import('jsonwebtoken')
    const keys = jwksRsa({ jwksUri: await jwksUri(issuer) })
    return async (token) => {
      const key = await keys.getSigningKey(jwt.decode(token, { complete: true }).header.kid)
      jwt.verify(token, key.getPublicKey(), { issuer, audience, algorithms: ['RS256'] })
    }
  },

  async 'get-jwks'(issuer) {
    const { default: buildGetJwks } = await import('get-jwks')
    const { default: jwt } = await import('jsonwebtoken')
    const keys = buildGetJwks({ providerDiscovery: true })
    return async (token) => {
      const { kid, alg } = jwt.decode(token, { complete: true }).header
      const key = await keys.getPublicKey({ kid, alg, domain: issuer })
      jwt.verify(token, key, { issuer, audience, algorithms: ['RS256'] })
    }
  },

  async 'aws-jwt-verify'(issuer) {
    const { JwtVerifier } = await import('aws-jwt-verify')
    const verifier = JwtVerifier.create({ issuer, audience, jwksUri: await jwksUri(issuer) })
    return (token) => verifier.verify(token)
  },

  async 'express-oauth2-jwt-bearer'(issuer) {
    const { auth } = await import('express-oauth2-jwt-bearer')
    const middleware = auth({ issuerBaseURL: issuer, audience })
    return (token) =>
      new Promise((resolve, reject) => {
        // As much of a request of Express as it looks at.
        const headers = { authorization: `Bearer ${token}`, host: 'api.example' }
        const get = (name) => headers[name.toLowerCase()]
        const request = { get, headers, is: () => false, method: 'GET', protocol: 'https', originalUrl: '/', query: {} }
        middleware(request, {}, (error) => (error ? reject(error) : resolve()))
      })
  },
}

const known = {}
async function answer(line) {
  if (line.startsWith('+')) {
    ahead += 1000 * Number(line)
    return 'later'
  }
  try {
    const [issuer, token] = line.split(' ')
    known[issuer] ??= await libraries[library](issuer)
    await known[issuer](token)
    return 'accepted'
  } catch (error) {
    return `refused ${error.name}: ${error.message}`.replace(/\s+/g, ' ')
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(await answer(line))
}
process.exit()
