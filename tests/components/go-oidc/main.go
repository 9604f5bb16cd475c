// Command go-oidc-verify verifies a token as a stranger would: go-oidc, and nothing known but the issuer.
//
//	go-oidc-verify ISSUER AUDIENCE CA_FILE < token
//	go-oidc-verify AUDIENCE < tokens
//
// The second answers as go-readers does. CA_FILE holds the only certificates that are trusted; `-` stands for an issuer on plain http.
// Prints the claims as one line of JSON and exits 0, or says why not on stderr and exits 1.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const timeout = 10 * time.Second

func main() {
	if len(os.Args) == 2 {
		session(os.Args[1])
		return
	}
	if len(os.Args) != 4 {
		fail(errors.New("usage: go-oidc-verify ISSUER AUDIENCE CA_FILE < token"))
	}
	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	claims, err := verify(os.Args[1], os.Args[2], os.Args[3], strings.TrimSpace(string(token)))
	if err != nil {
		fail(err)
	}
	fmt.Println(string(claims))
}

func verify(issuer, audience, caFile, token string) (json.RawMessage, error) {
	client, err := clientTrusting(caFile)
	if err != nil {
		return nil, err
	}
	ctx := oidc.ClientContext(context.Background(), client)

	// The algorithms that it accepts are those of the discovery document, as far as it knows them.
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: audience}).Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	var claims json.RawMessage
	return claims, verified.Claims(&claims)
}

// session presents tokens to verifiers that keep what they have read.
func session(audience string) {
	ctx := context.Background()
	known := map[string]*oidc.IDTokenVerifier{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		issuer, token, _ := strings.Cut(lines.Text(), " ")
		err := error(nil)
		if known[issuer] == nil {
			var provider *oidc.Provider
			if provider, err = oidc.NewProvider(ctx, issuer); err == nil {
				known[issuer] = provider.Verifier(&oidc.Config{ClientID: audience})
			}
		}
		if err == nil {
			_, err = known[issuer].Verify(ctx, token)
		}
		if err == nil {
			fmt.Println("accepted")
		} else {
			fmt.Println("refused", strings.Join(strings.Fields(err.Error()), " "))
		}
	}
}

func clientTrusting(caFile string) (*http.Client, error) {
	client := &http.Client{Timeout: timeout}
	if caFile == "-" {
		return client, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}
	return client, nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
