#!/usr/bin/env bash
# One would guess: a verifier of OIDC tokens that is given an issuer reads its discovery document, and the JWKS where
#   that says it is.
# What happens: aws-jwt-verify asks ISSUER/.well-known/jwks.json, the place where Amazon Cognito has it, and no
#   discovery document. Kubernetes has it at ISSUER/openid/v1/jwks, so every token is refused until `jwksUri` is given.
# Why it matters: the issuer looks broken, and everything about it is right.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"

npm install --silent --no-audit --no-fund --ignore-scripts aws-jwt-verify@5.2.1
cat > run.mjs <<'JS'
import { readFileSync } from 'node:fs'
import { generateKeyPairSync, sign } from 'node:crypto'
import { JwtVerifier } from 'aws-jwt-verify'
import { SimpleJwksCache } from 'aws-jwt-verify/jwk'

const { version } = JSON.parse(readFileSync('node_modules/aws-jwt-verify/package.json'))
console.log(`aws-jwt-verify ${version}`)
const issuer = 'https://issuer.example/c1'
const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'a', alg: 'RS256', use: 'sig' }
const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
const exp = Math.floor(Date.now() / 1000) + 600
const input = `${part({ alg: 'RS256', kid: 'a', typ: 'JWT' })}.${part({ iss: issuer, aud: 'api', sub: 's', exp })}`
const token = `${input}.${sign('sha256', Buffer.from(input), privateKey).toString('base64url')}`

for (const more of [{}, { jwksUri: `${issuer}/openid/v1/jwks` }]) {
  const asked = []
  const fetch = async (uri) => {
    asked.push(uri)
    return Buffer.from(JSON.stringify({ keys: [jwk] }))
  }
  const jwksCache = new SimpleJwksCache({ fetcher: { fetch } })
  await JwtVerifier.create({ issuer, audience: 'api', ...more }, { jwksCache }).verify(token)
  console.log(`with ${Object.keys(more).join() || 'the issuer alone'}: asks ${asked.join(' ')}`)
}
JS
node run.mjs | tee seen
diff - seen <<'SEEN'
aws-jwt-verify 5.2.1
with the issuer alone: asks https://issuer.example/c1/.well-known/jwks.json
with jwksUri: asks https://issuer.example/c1/openid/v1/jwks
SEEN
