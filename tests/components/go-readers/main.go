// Command go-readers presents tokens to a library that keeps what it has read, as a service does that runs for long.
//
//	go-readers LIBRARY AUDIENCE
//
// Reads lines from stdin, an issuer and a token of it, and answers each with a line: `accepted`, or `refused` and
// why. Which certificates are trusted says SSL_CERT_FILE.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/golang-jwt/jwt/v5"
	cap "github.com/hashicorp/cap/jwt"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

type present func(ctx context.Context, token string) error

// Each is set up when the first token of an issuer comes, and again with the next one as long as that fails.
var libraries = map[string]func(ctx context.Context, issuer, audience string) (present, error){
	"keyfunc":           withKeyfunc,
	"cap":               withCap,
	"zitadel-oidc":      withZitadel,
	"go-jwt-middleware": withMiddleware,
}

func main() {
	if len(os.Args) != 3 || libraries[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go-readers LIBRARY AUDIENCE < tokens")
		os.Exit(2)
	}
	ctx := context.Background()
	known := map[string]present{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		issuer, token, _ := strings.Cut(lines.Text(), " ")
		err := error(nil)
		if known[issuer] == nil {
			known[issuer], err = libraries[os.Args[1]](ctx, issuer, os.Args[2])
		}
		if err == nil {
			err = known[issuer](ctx, token)
		}
		if err == nil {
			fmt.Println("accepted")
		} else {
			fmt.Println("refused", strings.Join(strings.Fields(err.Error()), " "))
		}
	}
}

func withKeyfunc(ctx context.Context, issuer, audience string) (present, error) {
	jwksURI, err := discover(issuer)
	if err != nil {
		return nil, err
	}
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{jwksURI})
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, token string) error {
		_, err := jwt.Parse(token, keys.Keyfunc, jwt.WithIssuer(issuer), jwt.WithAudience(audience))
		return err
	}, nil
}

func withCap(ctx context.Context, issuer, audience string) (present, error) {
	keys, err := cap.NewOIDCDiscoveryKeySet(ctx, issuer, "")
	if err != nil {
		return nil, err
	}
	validator, err := cap.NewValidator(keys)
	if err != nil {
		return nil, err
	}
	expected := cap.Expected{
		Issuer: issuer, Audiences: []string{audience}, SigningAlgorithms: []cap.Alg{cap.RS256, cap.ES256},
	}
	return func(ctx context.Context, token string) error {
		_, err := validator.Validate(ctx, token, expected)
		return err
	}, nil
}

func withZitadel(_ context.Context, issuer, _ string) (present, error) {
	jwksURI, err := discover(issuer)
	if err != nil {
		return nil, err
	}
	// It leaves the audience of an access token to the program.
	verifier := op.NewAccessTokenVerifier(issuer, rp.NewRemoteKeySet(http.DefaultClient, jwksURI))
	return func(ctx context.Context, token string) error {
		_, err := op.VerifyAccessToken[*oidc.AccessTokenClaims](ctx, token, verifier)
		return err
	}, nil
}

func withMiddleware(_ context.Context, issuer, audience string) (present, error) {
	issuerURL, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	keys, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuerURL))
	if err != nil {
		return nil, err
	}
	validator, err := validator.New(
		validator.WithKeyFunc(keys.KeyFunc),
		validator.WithAlgorithm(validator.RS256),
		validator.WithIssuer(issuer),
		validator.WithAudience(audience),
	)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, token string) error {
		_, err := validator.ValidateToken(ctx, token)
		return err
	}, nil
}

// discover is for libraries that leave the discovery document to the program.
func discover(issuer string) (string, error) {
	answer, err := http.Get(issuer + "/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var document struct {
		JWKSURI string `json:"jwks_uri"`
	}
	return document.JWKSURI, json.NewDecoder(answer.Body).Decode(&document)
}
