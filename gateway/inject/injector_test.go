package inject

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"gatewayd/gateway/routes"
)

// fixed is a source of one value or error.
type fixed struct {
	value string
	err   error
}

func (f fixed) Secret(context.Context) (Secret, error) { return NewSecret(f.value), f.err }
func (f fixed) Ref() routes.SecretRef                  { return routes.SecretRef{Env: "X"} }

const (
	dummy1 = "dummy-of-bottle-dev-1"
	dummy2 = "dummy-of-bottle-dev-2"
)

var jwtKey = []byte("0123456789abcdef0123456789abcdef")

func newInjector(t *testing.T, auth routes.Auth) *Injector {
	t.Helper()
	auth.Dummies = routes.Dummies{Values: []string{dummy1, dummy2}, JWTKey: jwtKey}
	i, err := New(auth, fixed{value: real1})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func basic(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

func TestCheckBearer(t *testing.T) {
	i := newInjector(t, routes.Auth{Scheme: routes.Bearer})
	expired := sign(t, jwt.SigningMethodHS256, jwtKey, jwt.MapClaims{"exp": 1, "nbf": 99999999999, "sub": "x"})
	for name, h := range map[string]http.Header{
		"nothing":                {},
		"unrelated":              {"X-Csrf-Token": {"abc"}, "Cookie": {"session=1"}, "Idempotency-Key": {"k"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}},
		"dummy":                  {"Authorization": {"Bearer " + dummy1}},
		"other dummy":            {"Authorization": {"Bearer " + dummy2}},
		"scheme in lower case":   {"Authorization": {"bearer " + dummy1}},
		"two spaces":             {"Authorization": {"Bearer  " + dummy1}},
		"token scheme":           {"Authorization": {"token " + dummy1}},
		"bare":                   {"Authorization": {dummy1}},
		"empty":                  {"Authorization": {""}},
		"jwt":                    {"Authorization": {"Bearer " + expired}},
		"basic password":         {"Authorization": {basic("x-access-token:" + dummy1)}},
		"basic user":             {"Authorization": {basic(dummy1 + ":x-oauth-basic")}},
		"two headers, one dummy": {"Authorization": {"Bearer " + dummy1}, "X-Api-Key": {dummy1}},
		"subprotocols":           {"Sec-Websocket-Protocol": {"realtime, bearer." + dummy1, "graphql-ws"}},
	} {
		if err := i.Check(Head{Header: h}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	none := sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.MapClaims{})
	hs512 := sign(t, jwt.SigningMethodHS512, jwtKey, jwt.MapClaims{})
	otherKey := sign(t, jwt.SigningMethodHS256, []byte("another-key-another-key-another-key"), jwt.MapClaims{})
	parts := strings.Split(expired, ".")
	for name, c := range map[string]struct {
		h      http.Header
		header string
	}{
		"foreign":                 {http.Header{"Authorization": {"Bearer sk-other"}}, "Authorization"},
		"bare foreign":            {http.Header{"Authorization": {"sk-other"}}, "Authorization"},
		"dummy with a suffix":     {http.Header{"Authorization": {"Bearer " + dummy1 + "x"}}, "Authorization"},
		"dummy cut":               {http.Header{"Authorization": {"Bearer " + dummy1[:10]}}, "Authorization"},
		"dummy in another case":   {http.Header{"Authorization": {"Bearer " + strings.ToUpper(dummy1)}}, "Authorization"},
		"two in one":              {http.Header{"Authorization": {"Bearer " + dummy1 + ", Bearer sk-other"}}, "Authorization"},
		"two parameters":          {http.Header{"Authorization": {"Bearer " + dummy1 + " sk-other"}}, "Authorization"},
		"duplicate":               {http.Header{"Authorization": {"Bearer " + dummy1, "Bearer " + dummy1}}, "Authorization"},
		"foreign second":          {http.Header{"Authorization": {"Bearer " + dummy1, "Bearer sk-other"}}, "Authorization"},
		"lower-case key":          {http.Header{"authorization": {"Bearer sk-other"}}, "authorization"},
		"underscores":             {http.Header{"X_api_key": {"sk-other"}}, "X_api_key"},
		"basic foreign":           {http.Header{"Authorization": {basic("user:password")}}, "Authorization"},
		"basic broken":            {http.Header{"Authorization": {"Basic %%%"}}, "Authorization"},
		"basic without colon":     {http.Header{"Authorization": {basic(dummy1)}}, "Authorization"},
		"digest":                  {http.Header{"Authorization": {`Digest username="` + dummy1 + `", response="x"`}}, "Authorization"},
		"proxy":                   {http.Header{"Proxy-Authorization": {basic("user:password")}}, "Proxy-Authorization"},
		"api key":                 {http.Header{"X-Api-Key": {"sk-other"}}, "X-Api-Key"},
		"api key without prefix":  {http.Header{"Api-Key": {"sk-other"}}, "Api-Key"},
		"api key beside a dummy":  {http.Header{"Authorization": {"Bearer " + dummy1}, "X-Goog-Api-Key": {"AIza"}}, "X-Goog-Api-Key"},
		"private token":           {http.Header{"Private-Token": {"glpat"}}, "Private-Token"},
		"security token":          {http.Header{"X-Amz-Security-Token": {"x"}}, "X-Amz-Security-Token"},
		"forwarded authorization": {http.Header{"X-Forwarded-Authorization": {"Bearer sk-other"}}, "X-Forwarded-Authorization"},
		"jwt alg none":            {http.Header{"Authorization": {"Bearer " + none}}, "Authorization"},
		"jwt other alg":           {http.Header{"Authorization": {"Bearer " + hs512}}, "Authorization"},
		"jwt other key":           {http.Header{"Authorization": {"Bearer " + otherKey}}, "Authorization"},
		"jwt without signature":   {http.Header{"Authorization": {"Bearer " + parts[0] + "." + parts[1] + "."}}, "Authorization"},
		"jwt other claims":        {http.Header{"Authorization": {"Bearer " + parts[0] + ".e30." + parts[2]}}, "Authorization"},
		"too long":                {http.Header{"Authorization": {"Bearer " + strings.Repeat("a", maxDummy+1)}}, "Authorization"},
		"basic too long":          {http.Header{"Authorization": {basic(strings.Repeat("a", maxDummy) + ":" + dummy1)}}, "Authorization"},
		"subprotocol":             {http.Header{"Sec-Websocket-Protocol": {"realtime, vendor-insecure-api-key.sk-other"}}, "Sec-Websocket-Protocol"},
	} {
		err := i.Check(Head{Header: c.h})
		var fe *ForeignError
		if !errors.As(err, &fe) || fe.Header != c.header || fe.Query != "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, v := range c.h[c.header] {
			if len(v) > 3 && strings.Contains(err.Error(), v) {
				t.Errorf("%s: the error shows the credential: %v", name, err)
			}
		}
	}
}

func TestCheckQuery(t *testing.T) {
	query := newInjector(t, routes.Auth{Scheme: routes.QueryScheme, Query: "key"})
	bearer := newInjector(t, routes.Auth{Scheme: routes.Bearer})
	for raw, want := range map[string]struct{ query, bearer string }{
		"":              {"", ""},
		"a=b&c":         {"", ""},
		"key=" + dummy1: {"", ""},
		"key=" + url.QueryEscape(dummy1) + "&a=b": {"", ""},
		"key=%64" + dummy1[1:]:                    {"", ""},
		"key=":                                    {"", ""},
		"key=foreign":                             {"key", ""},
		"KEY=foreign":                             {"KEY", ""},
		"%6bey=foreign":                           {"key", ""},
		"key[]=foreign":                           {"key[]", ""},
		"a=b;key=foreign":                         {"key", ""},
		"key=" + dummy1 + "&key=foreign":          {"key", ""},
		"key=" + dummy1 + "&key=" + dummy1:        {"key", ""},
		"access_token=foreign":                    {"access_token", "access_token"},
		"api_key=foreign":                         {"api_key", "api_key"},
		"access_token=" + dummy1:                  {"", ""},
		"x=%zz":                                   {"", ""},
		"key=%zz":                                 {"key", ""},
		"monkey=foreign&keys=x":                   {"", ""},
	} {
		for name, c := range map[string]struct {
			i    *Injector
			want string
		}{"query": {query, want.query}, "bearer": {bearer, want.bearer}} {
			before := raw
			err := c.i.Check(Head{Header: http.Header{}, RawQuery: &raw})
			var fe *ForeignError
			if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &fe) || fe.Query != c.want) {
				t.Errorf("%s: %q: %v, want %q", name, raw, err, c.want)
			}
			if raw != before {
				t.Errorf("%s: Check changed %q", name, before)
			}
		}
	}
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name          string
		auth          routes.Auth
		in, out       http.Header
		query, queryO string
	}{
		{
			"bearer", routes.Auth{Scheme: routes.Bearer},
			http.Header{"Authorization": {"Bearer " + dummy1}, "Accept": {"*/*"}},
			http.Header{"Authorization": {"Bearer " + real1}, "Accept": {"*/*"}},
			"a=1&&b=%2f;c", "a=1&&b=%2f;c",
		},
		{
			"every copy goes", routes.Auth{Scheme: routes.Bearer},
			http.Header{"Authorization": {"Bearer " + dummy1}, "authorization": {"x"}, "X-Api-Key": {dummy1}, "X_api_key": {"x"}, "Proxy-Authorization": {"y"}, "Cookie": {"c=d"}},
			http.Header{"Authorization": {"Bearer " + real1}, "Cookie": {"c=d"}},
			"access_token=" + dummy1 + "&a=1&api_key=x", "a=1",
		},
		{
			"basic", routes.Auth{Scheme: routes.Basic, User: "bot"},
			http.Header{"Authorization": {basic("x:" + dummy1)}},
			http.Header{"Authorization": {basic("bot:" + real1)}},
			"", "",
		},
		{
			"header", routes.Auth{Scheme: routes.HeaderScheme, Header: "x-corp-cred"},
			http.Header{"X-Corp-Cred": {dummy1}, "X_corp_cred": {"x"}, "Authorization": {"Bearer " + dummy2}},
			http.Header{"X-Corp-Cred": {real1}},
			"", "",
		},
		{
			"query", routes.Auth{Scheme: routes.QueryScheme, Query: "key"},
			http.Header{"Authorization": {"Bearer " + dummy1}},
			http.Header{},
			"a=1&key=" + dummy1 + "&%6Bey=x;key[0]=y&b=2", "a=1&b=2&key=" + real1,
		},
		{
			"query alone", routes.Auth{Scheme: routes.QueryScheme, Query: "key"},
			http.Header{}, http.Header{},
			"", "key=" + real1,
		},
		{
			"nothing there", routes.Auth{Scheme: routes.Bearer},
			http.Header{}, http.Header{"Authorization": {"Bearer " + real1}},
			"", "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newInjector(t, c.auth)
			query := c.query
			got, err := i.Apply(context.Background(), Head{Header: c.in, RawQuery: &query})
			if err != nil || got.Reveal() != real1 {
				t.Fatalf("%v", err)
			}
			if !reflect.DeepEqual(c.in, c.out) || query != c.queryO {
				t.Errorf("head %q query %q, want %q %q", c.in, query, c.out, c.queryO)
			}
		})
	}
}

func TestApplyWithoutSecretChangesNothing(t *testing.T) {
	missing := &MissingError{Ref: routes.SecretRef{Env: "X"}, Err: errors.New("gone")}
	i, err := New(routes.Auth{Scheme: routes.QueryScheme, Query: "key"}, fixed{err: missing})
	if err != nil {
		t.Fatal(err)
	}
	h, query := http.Header{"Authorization": {"x"}}, "key=y"
	got, err := i.Apply(context.Background(), Head{Header: h, RawQuery: &query})
	var me *MissingError
	if !errors.As(err, &me) || !got.IsZero() || h.Get("Authorization") != "x" || query != "key=y" {
		t.Errorf("%v, %q, %q", err, h, query)
	}
	i = newInjector(t, routes.Auth{Scheme: routes.QueryScheme, Query: "key"})
	if _, err := i.Apply(context.Background(), Head{Header: http.Header{}}); err == nil {
		t.Error("a query credential without a query")
	}
}

// TestInjectedValueIsMasked sends what Apply set through the masker, in the
// forms that an echoing server would send back.
func TestInjectedValueIsMasked(t *testing.T) {
	for _, auth := range []routes.Auth{
		{Scheme: routes.Bearer}, {Scheme: routes.Basic, User: "u"}, {Scheme: routes.Basic, User: "bot"}, {Scheme: routes.Basic},
		{Scheme: routes.HeaderScheme, Header: "X-Api-Key"}, {Scheme: routes.QueryScheme, Query: "key"},
	} {
		i := newInjector(t, auth)
		h, query := http.Header{}, ""
		applied, err := i.Apply(context.Background(), Head{Header: h, RawQuery: &query})
		if err != nil {
			t.Fatal(err)
		}
		m := i.Masker(applied)
		if i.Masker(NewSecret(real1)) != m {
			t.Errorf("%s: the masker is not kept", auth.Scheme)
		}
		if i.Masker(NewSecret("another-secret-value")) == m {
			t.Errorf("%s: the masker is kept for another secret", auth.Scheme)
		}
		echo := h.Get("Authorization") + " " + h.Get("X-Api-Key") + " " + query
		_, credential, ok := strings.Cut(strings.TrimSpace(echo), " ")
		if !ok {
			credential = strings.TrimPrefix(strings.TrimSpace(echo), "key=")
		}
		if credential == "" || strings.Contains(m.String(echo), credential) {
			t.Errorf("%s: %q is echoed", auth.Scheme, credential)
		}
	}
}

// bare is a Header that has nothing but the three methods.
type bare struct{ h http.Header }

func (b bare) Values(name string) []string { return b.h.Values(name) }
func (b bare) Set(name, value string)      { b.h.Set(name, value) }
func (b bare) Del(name string)             { b.h.Del(name) }

type named struct{ bare }

func (n named) Names() (names []string) {
	for name := range n.h {
		names = append(names, name)
	}
	return names
}

func TestOtherHeaderTypes(t *testing.T) {
	i := newInjector(t, routes.Auth{Scheme: routes.HeaderScheme, Header: "X-Corp-Cred"})
	for name, wrap := range map[string]func(http.Header) Header{
		"bare":  func(h http.Header) Header { return bare{h} },
		"named": func(h http.Header) Header { return named{bare{h}} },
	} {
		for _, header := range []string{"Authorization", "X-Corp-Cred", "X-Api-Key", "Proxy-Authorization"} {
			h := http.Header{header: {"foreign"}}
			var fe *ForeignError
			if err := i.Check(Head{Header: wrap(h)}); !errors.As(err, &fe) {
				t.Errorf("%s: foreign %s passes: %v", name, header, err)
			}
			if _, err := i.Apply(context.Background(), Head{Header: wrap(h)}); err != nil || len(h) != 1 || h.Get("X-Corp-Cred") != real1 {
				t.Errorf("%s: %v, %q", name, err, h)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	src := fixed{value: real1}
	for name, c := range map[string]struct {
		auth routes.Auth
		src  Source
	}{
		"no source":   {routes.Auth{Scheme: routes.Bearer}, nil},
		"no scheme":   {routes.Auth{}, src},
		"no header":   {routes.Auth{Scheme: routes.HeaderScheme}, src},
		"no query":    {routes.Auth{Scheme: routes.QueryScheme}, src},
		"empty dummy": {routes.Auth{Scheme: routes.Bearer, Dummies: routes.Dummies{Values: []string{""}}}, src},
	} {
		if _, err := New(c.auth, c.src); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	i, err := New(routes.Auth{Scheme: routes.Bearer}, src)
	if err != nil {
		t.Fatal(err)
	}
	if i.Check(Head{Header: http.Header{"Authorization": {"Bearer anything"}}}) == nil {
		t.Error("a route without dummies takes any credential")
	}
}

func TestStripHopByHop(t *testing.T) {
	h := http.Header{
		"Connection": {"keep-alive, X-Private", "Upgrade"}, "X-Private": {"1"}, "Keep-Alive": {"timeout=5"}, "Upgrade": {"websocket"},
		"Te": {"trailers"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Proxy-Connection": {"close"},
		"Proxy-Authorization": {"Basic x"}, "Proxy-Authenticate": {"Basic"}, "Accept": {"*/*"}, "Authorization": {"Bearer x"},
	}
	if err := StripHopByHop(h, nil); err != nil {
		t.Fatal(err)
	}
	if want := (http.Header{"Accept": {"*/*"}, "Authorization": {"Bearer x"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("%q, want %q", h, want)
	}
	for _, option := range []string{
		"authorization", "Authorization", "close, authorization", "x-api-key", "X_Api_Key", "host", "cookie", "content-length",
		"x-forwarded-for", "a b", "a:b", `"authorization"`, "\x00", "close,\tauthorization\t",
	} {
		h := http.Header{"Connection": {"close", option}, "Upgrade": {"x"}}
		var ce *ConnectionError
		if err := StripHopByHop(h, nil); !errors.As(err, &ce) || h.Get("Upgrade") == "" || strings.ContainsAny(err.Error(), "\x00\n") {
			t.Errorf("%q: %v, %q", option, err, h)
		}
	}
}

// FuzzInjector checks that no head makes the injector panic, that what Check
// lets through carries no credential but the plan's after Apply, and that
// Apply leaves exactly one.
func FuzzInjector(f *testing.F) {
	f.Add("Authorization", "Bearer "+dummy1, "a=1&key="+dummy1)
	f.Add("x_api_key", "foreign", "%6bey=foreign;access_token=x")
	f.Add("Sec-Websocket-Protocol", "bearer.foreign", "")
	f.Add("Authorization", "Bearer a.b.c", "key=a.b.c")
	f.Fuzz(func(t *testing.T, name, value, rawQuery string) {
		for _, auth := range []routes.Auth{{Scheme: routes.Bearer}, {Scheme: routes.HeaderScheme, Header: "X-K"}, {Scheme: routes.QueryScheme, Query: "key"}} {
			i := newInjector(t, auth)
			h, query := http.Header{name: {value}}, rawQuery
			head := Head{Header: h, RawQuery: &query}
			_ = i.Check(head)
			if _, err := i.Apply(context.Background(), head); err != nil {
				t.Fatal(err)
			}
			for _, left := range family(nil, h, i.auth.Header) {
				if left != i.auth.Header || len(h[left]) != 1 {
					t.Fatalf("%q is left in %q", left, h)
				}
			}
			own := 0
			for p := range params(query) {
				if i.credentialParam(p.name) {
					own++
				}
			}
			if inQuery := auth.Scheme == routes.QueryScheme; inQuery && own != 1 || !inQuery && own != 0 {
				t.Fatalf("%d credentials in %q", own, query)
			}
			if err := i.Check(Head{Header: h}); auth.Scheme != routes.QueryScheme && err == nil {
				t.Fatal("the real credential counts as a dummy")
			}
		}
	})
}
