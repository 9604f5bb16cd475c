#!/usr/bin/env bash
# One would guess: `WithCacheTTL(100 ms)` is how long a JWKS is kept, or the longest that it is, and a token of an
#   unknown key makes the library look again.
# What happens: go-jwt-middleware v3 goes by the server's `max-age`, up to seven days, whatever the program says, and
#   never looks because of a token. Version 2 went by the program.
# Why it matters: an hour in a header that a CDN adds makes services refuse every token of a new key for as long.
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
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func main() {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if strings.HasPrefix(module.Path, "github.com/auth0/go-jwt-middleware") {
			fmt.Println("go-jwt-middleware", module.Version)
		}
	}
	for _, maxAge := range []string{"", "max-age=3600"} {
		try(maxAge)
	}
}

func try(maxAge string) {
	var keys []jose.JSONWebKey
	asked, issuer := 0, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": issuer + "/keys"})
			return
		}
		asked++
		if maxAge != "" {
			w.Header().Set("Cache-Control", maxAge)
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
		text, _ := jwt.Signed(signer).Claims(claims).Serialize()
		return text
	}
	at, _ := url.Parse(issuer)
	provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(at), jwks.WithCacheTTL(100*time.Millisecond))
	must(err)
	verifier, err := validator.New(validator.WithKeyFunc(provider.KeyFunc), validator.WithAlgorithm(validator.RS256),
		validator.WithIssuer(issuer), validator.WithAudience("api"))
	must(err)
	_, err = verifier.ValidateToken(context.Background(), token("first"))
	must(err)
	second := token("second")
	time.Sleep(time.Second)
	_, err = verifier.ValidateToken(context.Background(), second)
	fmt.Printf("Cache-Control %q, a second later: new key accepted %v, JWKS read %d times\n", maxAge, err == nil, asked)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
GO
go mod init finding 2> /dev/null
go get github.com/auth0/go-jwt-middleware/v3@v3.1.0 github.com/go-jose/go-jose/v4@v4.1.4 2> /dev/null
go run . | tee seen
diff - seen <<'SEEN'
go-jwt-middleware v3.1.0
Cache-Control "", a second later: new key accepted true, JWKS read 2 times
Cache-Control "max-age=3600", a second later: new key accepted false, JWKS read 1 times
SEEN
