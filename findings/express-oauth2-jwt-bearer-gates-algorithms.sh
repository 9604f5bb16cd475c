#!/usr/bin/env bash
# One would guess: once the JWKS has a key of a new type, and a token of it makes the library read the JWKS again, the
#   token is taken.
# What happens: express-oauth2-jwt-bearer reads `id_token_signing_alg_values_supported` of the discovery document
#   once in ten minutes, and refuses every other algorithm although it has found the key in the new JWKS.
# Why it matters: an issuer that changes from RSA to EC must say so in discovery ten minutes before the first token,
#   although the list is about ID tokens and RFC 7517 says nothing of it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"

npm install --silent --no-audit --no-fund --ignore-scripts express-oauth2-jwt-bearer@1.10.0
cat > run.mjs <<'JS'
import { readFileSync } from 'node:fs'
import { generateKeyPairSync, sign } from 'node:crypto'
import http from 'node:http'

let ahead = 0
const now = Date.now.bind(Date)
Date.now = () => now() + ahead
const { auth } = await import('express-oauth2-jwt-bearer')

const { version } = JSON.parse(readFileSync('node_modules/express-oauth2-jwt-bearer/package.json'))
console.log(`express-oauth2-jwt-bearer ${version}`)
const make = (kid, alg, ...how) => {
  const { publicKey, privateKey } = generateKeyPairSync(...how)
  return { kid, alg, privateKey, jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' } }
}
const rsa = make('rsa', 'RS256', 'rsa', { modulusLength: 2048 })
const ec = make('ec', 'ES256', 'ec', { namedCurve: 'P-256' })
let keys = [rsa]
const server = http.createServer((request, response) => {
  const jwks_uri = `${issuer}/keys`
  const id_token_signing_alg_values_supported = keys.map(({ alg }) => alg)
  const discovery = { issuer, jwks_uri, id_token_signing_alg_values_supported }
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(request.url === '/keys' ? { keys: keys.map(({ jwk }) => jwk) } : discovery))
})
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `http://127.0.0.1:${server.address().port}`

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
const token = ({ kid, alg, privateKey }) => {
  const iat = Math.floor(now() / 1000)
  const input = `${part({ alg, kid, typ: 'JWT' })}.${part({ iss: issuer, aud: 'api', sub: 's', iat, exp: iat + 3600 })}`
  const signature = sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}
const middleware = auth({ issuerBaseURL: issuer, audience: 'api' })
const present = async (when, key) => {
  const headers = { authorization: `Bearer ${token(key)}`, host: 'api.example' }
  const get = (name) => headers[name.toLowerCase()]
  const request = { get, headers, is: () => false, method: 'GET', protocol: 'https', originalUrl: '/', query: {} }
  const error = await new Promise((done) => middleware(request, {}, done))
  console.log(`${when}, ${key.alg}: ${error ? error.message : 'accepted'}`)
}
await present('at first', rsa)
keys = [rsa, ec]
ahead = 60_000
await present('a minute after EC is public', ec)
ahead = 9 * 60_000
await present('nine minutes later', ec)
ahead = 11 * 60_000
await present('eleven minutes later', ec)
server.close()
JS
node run.mjs | tee seen
diff - seen <<'SEEN'
express-oauth2-jwt-bearer 1.10.0
at first, RS256: accepted
a minute after EC is public, ES256: Unexpected 'alg' value
nine minutes later, ES256: Unexpected 'alg' value
eleven minutes later, ES256: accepted
SEEN
