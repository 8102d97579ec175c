package pipelock

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// random returns n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 61))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// signedToken returns a JSON Web Token, of nobody's.
func signedToken(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"typ":"JWT","alg":"RS256","kid":"a1"}`)) + "." + enc([]byte(claims)) + "." + enc(random(1, 256))
}

// head is a request's method line and fields, and what is found in them, as "action rule in place".
type head struct {
	target string
	fields http.Header
	found  []string
}

// heads are those of ordinary work, and beside them those of the same form that must not pass.
func heads() map[string]head {
	hexed := func(seed uint64, n int) string { return hex.EncodeToString(random(seed, n)) }
	coded := func(seed uint64, n int) string { return base64.StdEncoding.EncodeToString(random(seed, n)) }
	sum := sha256.Sum256([]byte("a blob"))
	digest := "sha256:" + hex.EncodeToString(sum[:])
	id := formTokens()["aws-access-token"]
	scope := "/20260101/eu-west-1/s3/aws4_request"
	bearer := signedToken(`{"iss":"auth.registry.test","aud":"registry.test","exp":1790000000,"access":[{"type":"repository","name":"library/alpine","actions":["pull"]}]}`)
	asset := signedToken(`{"iss":"forge.test","aud":"assets.test","key":"key1","exp":1790000000,"path":"releaseassetproduction.blob.test"}`)
	fields := func(pairs ...string) http.Header {
		h := http.Header{"User-Agent": {"client/1.2.3 (linux; x86_64)"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip, br"}}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	basic := func(user, password string) http.Header {
		return fields("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	presigned := func(method string) string {
		return "/prod-registry-v2-starport/blobs/" + digest + "/data?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + url.QueryEscape(id+scope) +
			"&X-Amz-Date=20260101T000000Z&X-Amz-Expires=1200&X-Amz-Security-Token=" + url.QueryEscape("IQoJb3JpZ2luX2Vj"+coded(2, 600)) +
			"&X-Amz-SignedHeaders=host&X-Amz-Signature=" + hexed(3, 32) + "&x-id=" + method
	}
	sas := "/release-asset/1234567/" + "0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab?sp=r&sv=2018-11-09&sr=b&spr=https&se=2026-01-01T00%3A59%3A59Z&rscd=attachment%3B+filename%3Dtool.tar.gz" +
		"&rsct=application%2Foctet-stream&skoid=96c2d410-5711-43a1-aedd-ab1947aa7ab0&sktid=398a6654-997b-47e9-b12b-9515b896b4de&skt=2026-01-01T00%3A00%3A00Z&ske=2026-01-01T00%3A59%3A59Z&sks=b&skv=2018-11-09&sig=" +
		url.QueryEscape(coded(4, 32))
	signed := "AWS4-HMAC-SHA256 Credential=" + id + scope + ", SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + hexed(5, 32)
	right := githubToken("q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A", true)
	return map[string]head{
		"npm, metadata":          {"/@scope%2fapi-token", fields("Npm-Auth-Type", "web", "Npm-Command", "install", "Pacote-Req-Type", "packument", "Npm-Session", hexed(6, 8)), nil},
		"npm, tarball":           {"/key-tree/-/key-tree-1.0.3.tgz", fields("If-None-Match", `"`+hexed(7, 16)+`"`), nil},
		"pip, wheel":             {"/packages/" + hexed(8, 1) + "/" + hexed(9, 1) + "/" + hexed(10, 30) + "/token_api-1.0-py3-none-any.whl#sha256=" + hexed(11, 32), fields("User-Agent", `pip/25.0 {"ci":null,"cpu":"x86_64","distro":{"id":"trixie","libc":{"lib":"glibc","version":"2.41"},"name":"Debian GNU/Linux"},"implementation":{"name":"CPython","version":"3.13.1"},"openssl_version":"OpenSSL 3.4.0","python":"3.13.1"}`), nil},
		"cargo, crate":           {"/crates/secret-service/3.1.0/download", fields("If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"), nil},
		"go, module":             {"/example.test/auth-token/@v/v1.2.4-0.20260101000000-" + hexed(12, 6) + ".zip", fields(), nil},
		"go, checksums":          {"/sumdb/sum.test/tile/8/0/x012/345.p/67", fields(), nil},
		"git, fetch":             {"/team/project.git/info/refs?service=git-upload-pack", fields("Git-Protocol", "version=2"), nil},
		"git, no password":       {"/team/project.git/info/refs?service=git-receive-pack", basic("git", ""), nil},
		"git, a dummy-like word": {"/team/project.git/git-receive-pack", basic("x-access-token", "placeholder"), nil},
		"git, a token":           {"/team/project.git/git-receive-pack", basic("x-access-token", right), []string{"block github-pat in header Authorization", "warn generic-api-key in header Authorization"}},
		"git, an installation":   {"/team/project.git/git-receive-pack", basic("x-access-token", "ghs"+right[3:]), []string{"block github-app-token in header Authorization", "warn generic-api-key in header Authorization"}},

		"release, redirect":      {"/team/project/releases/download/v1.2.3/tool_1.2.3_linux_amd64.tar.gz", fields("Range", "bytes=0-"), nil},
		"release, signed":        {sas + "&response-content-disposition=attachment%3B%20filename%3Dtool.tar.gz", fields(), nil},
		"release, with a JWT":    {sas + "&jwt=" + asset + "&response-content-disposition=attachment%3B%20filename%3Dtool.tar.gz", fields(), []string{"warn jwt in url"}},
		"signed cookies":         {"/file?Expires=1790000000&Signature=" + coded(13, 128)[:120] + "__&Key-Pair-Id=K1AB2CD3EF4GH5", fields(), nil},
		"presigned, GET":         {presigned("GetObject"), fields(), []string{"warn generic-api-key in url"}},
		"presigned, PUT":         {presigned("PutObject"), fields("X-Amz-Checksum-Crc32", "AAAAAA==", "Content-Type", "application/octet-stream"), []string{"warn generic-api-key in url"}},
		"presigned, twice coded": {"/fetch?url=" + url.QueryEscape("https://s3.test"+presigned("GetObject")), fields(), nil},
		"presigned, of others":   {"/bucket/object?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=" + url.QueryEscape("robot@project.iam.test/20260101/auto/storage/goog4_request") + "&X-Goog-Date=20260101T000000Z&X-Goog-Expires=900&X-Goog-SignedHeaders=host&X-Goog-Signature=" + hexed(14, 256), fields(), nil},
		"signed header":          {"/bucket/key?list-type=2&prefix=a%2Fb", fields("Authorization", signed, "X-Amz-Content-Sha256", hexed(15, 32), "X-Amz-Date", "20260101T000000Z", "X-Amz-Security-Token", "IQoJb3JpZ2luX2Vj"+coded(16, 600)), nil},
		"signed header, region":  {"/", fields("Authorization", strings.Replace(signed, "AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 ", 1)), nil},

		"registry, challenge":   {"/v2/", fields("Accept", "application/vnd.oci.image.index.v1+json"), nil},
		"registry, sign-in":     {"/token?account=me&scope=repository%3Alibrary%2Falpine%3Apull&service=registry.test", fields(), nil},
		"registry, JWT":         {"/v2/library/alpine/manifests/" + digest, fields("Authorization", "Bearer "+bearer), []string{"warn jwt in header Authorization"}},
		"registry, JWT of h2":   {"/v2/library/alpine/manifests/latest", http.Header{"authorization": {"Bearer " + bearer}}, []string{"warn jwt in header Authorization"}},
		"registry, opaque":      {"/v2/team/app/blobs/" + digest, fields("Authorization", "Bearer djE6"+coded(17, 60)), nil},
		"registry, anonymous":   {"/v2/team/app/blobs/" + digest, fields("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte("v1:team/app:1790000000:"+coded(18, 32)))), nil},
		"registry, of a cloud":  {"/v2/team/app/manifests/1.0", basic("AWS", base64.StdEncoding.EncodeToString([]byte(`{"payload":"`+coded(19, 900)+`","datakey":"`+coded(20, 180)+`","version":"2","type":"DATA_KEY","expiration":1790000000}`))), []string{"warn generic-api-key in header Authorization"}},
		"registry, cross-mount": {"/v2/team/app/blobs/uploads/?mount=" + url.QueryEscape(digest) + "&from=library%2Falpine", fields(), nil},
		"registry, upload":      {"/v2/team/app/blobs/uploads/0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab?_state=" + base64.URLEncoding.EncodeToString(random(21, 200)) + "&digest=" + url.QueryEscape(digest), fields(), nil},

		"session":        {"/api/me", fields("Cookie", "theme=dark; session="+signedToken(`{"sub":"someone","exp":1790000000}`)+"; _csrf="+coded(22, 24)), []string{"warn jwt in header Cookie"}},
		"tracing":        {"/api", fields("Traceparent", "00-"+hexed(23, 16)+"-"+hexed(24, 8)+"-01", "X-Request-Id", "0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab", "Idempotency-Key", "0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab"), nil},
		"websocket":      {"/socket", fields("Sec-Websocket-Key", coded(25, 16), "Sec-Websocket-Protocol", "chat, api.v1"), nil},
		"preconditions":  {"/file", fields("If-None-Match", `W/"`+hexed(26, 32)+`"`, "Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:])), nil},
		"search":         {"/search?q=how+to+rotate+an+api+key&page=2&token_type=bearer", fields("Referer", "https://docs.test/guides/auth-token?next=%2Fkeys"), nil},
		"page of a list": {"/repos/a/b/issues?per_page=100&after=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("cursor:v2:2026-01-01T00:00:00Z:12345"))), fields(), nil},
		"example":        {"/docs?key=AKIAIOSFODNN7EXAMPLE", fields("X-Example", "AKIAIOSFODNN7EXAMPLE"), nil},

		"no: an id alone":              {"/x?id=" + id, fields(), []string{"block aws-access-token in url"}},
		"no: an id in a field":         {"/x", fields("X-Key", id), []string{"block aws-access-token in header X-Key"}},
		"no: credentials of two lines": {"/x", fields("X-Note", "AWSAccessKeyId="+id), []string{"block aws-access-token in header X-Note"}},
		"no: a JWT in a path":          {"/x/" + asset + "/y", fields(), []string{"block jwt in url"}},
		"no: a JWT in a signed path":   {"/x/" + asset + "/y?sig=abc", fields(), []string{"block jwt in url"}},
		"no: a JWT in a query":         {"/x?data=" + asset, fields(), []string{"block jwt in url"}},
		"no: a JWT in a field":         {"/x", fields("X-Data", asset), []string{"block jwt in header X-Data"}},
		"no: a key for models":         {"/v1/models", fields("Authorization", "Bearer sk-"+"proj-"+strings.Repeat("Ab3dE5gH7j", 7)+"Ab3d"+"T3Blbk"+"FJ"+strings.Repeat("kL9nP1rS2t", 7)+"kL9n"), []string{"block open" + "ai-api-key in header Authorization"}},
		"no: behind a JWT":             {"/x", fields("Authorization", "Bearer "+bearer+" "+right), []string{"block github-pat in header Authorization", "warn jwt in header Authorization"}},
		"no: known, beside a JWT":      {"/x?sig=a&jwt=" + asset + "&k=" + url.QueryEscape(secret), fields("Authorization", "Bearer "+dummy), []string{"block dummy of " + home + " in header Authorization", "block host secret in url", "warn jwt in url"}},
		"no: known, as who signed":     {"/x", fields("Authorization", "AWS4-HMAC-SHA256 Credential="+secret), []string{"block host secret in header Authorization"}},
	}
}

// TestOrdinaryHeadsPass pins what is found in the heads of ordinary requests.
func TestOrdinaryHeadsPass(t *testing.T) {
	s := formScanner(t)
	for name, h := range heads() {
		var got []string
		for _, f := range s.Request(other, h.target, h.fields, nil) {
			got = append(got, fmt.Sprintf("%s %s in %s", f.Action, f.Rule, f.Place))
		}
		slices.Sort(got)
		if !slices.Equal(got, h.found) {
			t.Errorf("%s: found %q, want %q", name, got, h.found)
		}
	}
}

// TestKnownTokenOfAServersForm: a token that is known is no server's to hand out, whatever its form and wherever it is.
func TestKnownTokenOfAServersForm(t *testing.T) {
	token := signedToken(`{"sub":"the host"}`)
	s := New([]Token{{Name: "jwt", Value: token}}).WithFormats(formScanner(t).formats, formScanner(t).policy)
	for name, h := range map[string]head{
		"bearer": {"/", http.Header{"Authorization": {"Bearer " + token}}, nil},
		"cookie": {"/", http.Header{"Cookie": {"s=" + token}}, nil},
		"signed": {"/?sig=a&jwt=" + token, nil, nil},
	} {
		got := s.Request(other, h.target, h.fields, nil)
		if !slices.ContainsFunc(got, func(f Finding) bool { return f.Action == Block }) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
