// Command go-azidentity gets tokens from Entra with a library that Microsoft gives to Go programs:
// ../relying_parties/azure_clients.py says how it is asked.
//
//	go-azidentity CLIENT
//
// CLIENT is `azidentity` or `msal-go`. Which certificates are trusted says SSL_CERT_FILE.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

const exchange = "api://AzureADTokenExchange/.default"

type request struct {
	Flow          string `json:"flow"`
	Tenant        string `json:"tenant"`
	ClientID      string `json:"client_id"`
	Scope         string `json:"scope"`
	TokenFile     string `json:"token_file"`
	Agent         string `json:"agent"`
	UserTokenFile string `json:"user_token_file"`
	Username      string `json:"username"`
	UserID        string `json:"user_id"`
}

type answer struct {
	Outcome string  `json:"outcome"`
	Code    int     `json:"code,omitempty"`
	Why     string  `json:"why,omitempty"`
	Seconds float64 `json:"seconds"`
}

var code = regexp.MustCompile(`AADSTS(\d+)`)

func main() {
	clients := map[string]struct {
		module  string
		acquire func(context.Context, request) (string, error)
	}{
		"azidentity": {"github.com/Azure/azure-sdk-for-go/sdk/azidentity", withAzidentity},
		"msal-go":    {"github.com/AzureAD/microsoft-authentication-library-for-go", withMsal},
	}
	if len(os.Args) != 2 || clients[os.Args[1]].acquire == nil {
		fmt.Fprintln(os.Stderr, "usage: go-azidentity azidentity|msal-go")
		os.Exit(1)
	}
	client := clients[os.Args[1]]
	tell(map[string]string{"client": os.Args[1], "version": version(client.module)})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		begun := time.Now()
		token, err := client.acquire(context.Background(), asked)
		told := outcome(token, err)
		told.Seconds = float64(time.Since(begun).Milliseconds()) / 1000
		tell(told)
	}
}

func outcome(token string, err error) answer {
	if err == nil && token == "" {
		err = errors.New("an empty token")
	}
	if err == nil {
		return answer{Outcome: "accepted"}
	}
	if found := code.FindStringSubmatch(err.Error()); found != nil {
		number, _ := strconv.Atoi(found[1])
		return answer{Outcome: "refused", Code: number}
	}
	return answer{Outcome: "failed", Why: err.Error()}
}

func withAzidentity(ctx context.Context, asked request) (string, error) {
	if asked.Flow != "workload" {
		return "", errors.New("azidentity has no such flow")
	}
	credential, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		TenantID: asked.Tenant, ClientID: asked.ClientID, TokenFilePath: asked.TokenFile,
	})
	if err != nil {
		return "", err
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{asked.Scope}})
	return token.Token, err
}

func withMsal(ctx context.Context, asked request) (string, error) {
	own, err := application(asked, asked.ClientID, func() (string, error) { return read(asked.TokenFile) })
	if err != nil {
		return "", err
	}
	if asked.Flow == "workload" {
		return token(own.AcquireTokenByCredential(ctx, []string{asked.Scope}))
	}
	t1, err := token(own.AcquireTokenByCredential(ctx, []string{exchange}, confidential.WithFMIPath(asked.Agent)))
	if err != nil {
		return "", err
	}
	agent, err := application(asked, asked.Agent, func() (string, error) { return t1, nil })
	if err != nil {
		return "", err
	}
	switch asked.Flow {
	case "agent":
		return token(agent.AcquireTokenByCredential(ctx, []string{asked.Scope}))
	case "on-behalf-of":
		user, err := read(asked.UserTokenFile)
		if err != nil {
			return "", err
		}
		return token(agent.AcquireTokenOnBehalfOf(ctx, user, []string{asked.Scope}))
	}
	t2, err := token(agent.AcquireTokenByCredential(ctx, []string{exchange}))
	if err != nil {
		return "", err
	}
	user := confidential.WithUserObjectID(asked.UserID)
	if asked.Username != "" {
		user = confidential.WithUserFICUsername(asked.Username)
	}
	return token(agent.AcquireTokenByUserFederatedIdentityCredential(ctx, []string{asked.Scope}, t2, user))
}

func application(asked request, clientID string, assertion func() (string, error)) (confidential.Client, error) {
	authority := strings.TrimSuffix(os.Getenv("AZURE_AUTHORITY_HOST"), "/") + "/" + asked.Tenant
	credential := confidential.NewCredFromAssertionCallback(
		func(context.Context, confidential.AssertionRequestOptions) (string, error) { return assertion() })
	return confidential.New(authority, clientID, credential)
}

func token(result confidential.AuthResult, err error) (string, error) {
	return result.AccessToken, err
}

func read(file string) (string, error) {
	content, err := os.ReadFile(file)
	return string(content), err
}

func version(module string) string {
	build, _ := debug.ReadBuildInfo()
	for _, one := range build.Deps {
		if one.Path == module {
			return strings.TrimPrefix(one.Version, "v")
		}
	}
	return ""
}

func tell(what any) {
	line, _ := json.Marshal(what)
	fmt.Println(string(line))
}
