#!/usr/bin/env node
// Verifies a token as a stranger would: npm jose, and nothing known but the issuer.
//
//     jose_verify.mjs ISSUER AUDIENCE CA_FILE < token
//
// CA_FILE holds the only certificates that are trusted; `-` stands for an issuer on plain http.
// Prints the claims as one line of JSON and exits 0, or says why not on stderr and exits 1.

import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRemoteJWKSet, customFetch, jwtVerify } from 'jose'

// What Kubernetes can sign with, less what a relying party must never take from a document.
const ALGORITHMS = ['RS256', 'ES256', 'ES384', 'ES512']
const TIMEOUT_MS = 10_000

// The built-in fetch cannot be given certificates once the process runs.
const fetchTrusting = (ca) => (url, { headers, signal } = {}) =>
  new Promise((resolve, reject) => {
    const { protocol } = new URL(url)
    const options = {
      ca,
      headers: Object.fromEntries(new Headers(headers)),
      signal: signal ?? AbortSignal.timeout(TIMEOUT_MS),
    }
    const request = (protocol === 'https:' ? https : http).get(url, options, (answer) => {
      if (answer.statusCode !== 200) {
        answer.resume()
        return reject(new Error(`${url} answered ${answer.statusCode}`))
      }
      const body = []
      answer.on('data', (bytes) => body.push(bytes))
      answer.on('error', reject)
      answer.on('end', () => resolve(new Response(Buffer.concat(body))))
    })
    request.on('error', reject)
  })

async function verify(issuer, audience, caFile, token) {
  const fetch = fetchTrusting(caFile === '-' ? undefined : readFileSync(caFile))
  const discoveryUrl = `${issuer.replace(/\/+$/, '')}/.well-known/openid-configuration`
  const discovery = await (await fetch(discoveryUrl)).json()

  // OpenID Connect Discovery 1.0, section 4.3: exactly equal, not equal after tidying.
  if (discovery.issuer !== issuer) {
    throw new Error(`the document names issuer ${discovery.issuer}, expected ${issuer}`)
  }
  const offered = discovery.id_token_signing_alg_values_supported
  const algorithms = ALGORITHMS.filter((algorithm) => offered.includes(algorithm))

  const keys = createRemoteJWKSet(new URL(discovery.jwks_uri), { [customFetch]: fetch })
  const { payload } = await jwtVerify(token, keys, {
    algorithms,
    audience,
    issuer,
    requiredClaims: ['exp', 'iat', 'iss', 'aud', 'sub'],
  })
  return payload
}

const args = process.argv.slice(2)
if (args.length !== 3) {
  console.error('usage: jose_verify.mjs ISSUER AUDIENCE CA_FILE < token')
  process.exit(1)
}
try {
  console.log(JSON.stringify(await verify(...args, readFileSync(0, 'utf8').trim())))
} catch (error) {
  console.error(`${error.code ?? error.name}: ${error.message}`)
  process.exitCode = 1
}
