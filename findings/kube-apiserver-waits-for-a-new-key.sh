#!/usr/bin/env bash
# One would guess: a relying party that meets an unknown kid reads the JWKS again, as every OIDC library of today does;
#   at the least it obeys `no-store`.
# What happens: kube-apiserver 1.37 still reads by go-oidc 2.5 and cachecontrol 0.1 (its go.mod). These refuse an
#   unknown kid without a request while the JWKS is fresh, and `no-store` does not stop it from being fresh: without
#   `max-age`, a tenth of the time since `Last-Modified` counts, up to a day; `s-maxage` beats `max-age`.
# Why it matters: a JWKS on a plain web server, which sends `Last-Modified` and nothing else, makes clusters that trust
#   the issuer refuse a new key for up to a day.
set -euo pipefail
folder=$(mktemp -d); trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT; cd "$folder"

export GOFLAGS=-mod=mod GOWORK=off CGO_ENABLED=0
cat > main.go <<'GO'
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"time"

	"github.com/coreos/go-oidc"
	"gopkg.in/go-jose/go-jose.v2"
	"gopkg.in/go-jose/go-jose.v2/jwt"
)

func main() {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		switch module.Path {
		case "github.com/coreos/go-oidc", "github.com/pquerna/cachecontrol", "gopkg.in/go-jose/go-jose.v2":
			fmt.Println(module.Path, module.Version)
		}
	}
	hundredDays := time.Now().Add(-100 * 24 * time.Hour).UTC().Format(http.TimeFormat)
	try(map[string]string{})
	try(map[string]string{"Cache-Control": "max-age=29"})
	try(map[string]string{"Cache-Control": "max-age=300"})
	try(map[string]string{"Cache-Control": "no-store", "Last-Modified": hundredDays})
	try(map[string]string{"Cache-Control": "max-age=0, s-maxage=300"})
}

func try(headers map[string]string) {
	var keys []jose.JSONWebKey
	asked, issuer := 0, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": issuer + "/keys"})
			return
		}
		asked++
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
	}))
	defer server.Close()
	issuer = server.URL
	token := func(kid string) string {
		private, _ := rsa.GenerateKey(rand.Reader, 2048)
		keys = append(keys, jose.JSONWebKey{Key: &private.PublicKey, KeyID: kid, Algorithm: "RS256", Use: "sig"})
		options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid)
		signer, _ := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: private}, options)
		expiry := jwt.NewNumericDate(time.Now().Add(time.Hour))
		claims := jwt.Claims{Issuer: issuer, Subject: "s", Audience: []string{"api"}, Expiry: expiry}
		text, _ := jwt.Signed(signer).Claims(claims).CompactSerialize()
		return text
	}
	ctx := context.Background()
	provider, err := oidc.NewProvider(ctx, issuer)
	must(err)
	verifier := provider.Verifier(&oidc.Config{ClientID: "api"})
	_, err = verifier.Verify(ctx, token("first"))
	must(err)
	_, err = verifier.Verify(ctx, token("second"))
	names := []string{}
	for _, name := range []string{"Cache-Control", "Last-Modified"} {
		if value, is := headers[name]; is && name == "Cache-Control" {
			names = append(names, value)
		} else if is {
			names = append(names, "Last-Modified 100 days ago")
		}
	}
	fmt.Printf("%q: new key accepted %v, JWKS read %d times\n", names, err == nil, asked)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
GO
go mod init finding 2> /dev/null
go get github.com/coreos/go-oidc@v2.5.0+incompatible github.com/pquerna/cachecontrol@v0.1.0 \
    gopkg.in/go-jose/go-jose.v2@v2.6.3 2> /dev/null
go mod tidy 2> /dev/null
go run . | tee seen
diff - seen <<'SEEN'
github.com/coreos/go-oidc v2.5.0+incompatible
github.com/pquerna/cachecontrol v0.1.0
gopkg.in/go-jose/go-jose.v2 v2.6.3
[]: new key accepted true, JWKS read 2 times
["max-age=29"]: new key accepted true, JWKS read 2 times
["max-age=300"]: new key accepted false, JWKS read 1 times
["no-store" "Last-Modified 100 days ago"]: new key accepted false, JWKS read 1 times
["max-age=0, s-maxage=300"]: new key accepted false, JWKS read 1 times
SEEN
