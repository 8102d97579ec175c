package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
)

const (
	apiToken   = "real-api-token-4fd1c07a9b"
	apiTokenIn = "Bearer " + apiToken
)

const clientsManifest = `
egress:
  routes:
    - host: api.example.org
      auth: { scheme: bearer, secret: { env: API_TOKEN } }
    - host: packages.example.org
    - host: git.example.org
      auth: { scheme: basic, user: x-token, secret: { env: API_TOKEN } }
`

// clientsBench is a bench for ordinary HTTPS clients.
func clientsBench(t *testing.T) (b *bench, api *lab.Site) {
	t.Helper()
	b = newBench(t, nil)
	b.Gateway.Env = append(b.Gateway.Env, "API_TOKEN="+apiToken)
	api = b.serve(&lab.Site{Names: []string{"api.example.org"}})
	return b, api
}

// ordinary is a client as an agent would run it, and the version of HTTP that
// it speaks when it may choose.
type ordinary struct {
	name, proto string
	argv        []string
}

// ordinaryClients are the clients that this machine has.
func ordinaryClients(t *testing.T, url string) []ordinary {
	t.Helper()
	privileged.Require(t, privileged.Root, privileged.Program("curl", "wget", "python3", "node"))
	python, node := pythonPath(t), lookPath(t, "node")
	list := []ordinary{
		{"curl HTTP/1.1", "HTTP/1.1", []string{"curl", "-sS", "--fail", "--http1.1", url}},
		{"curl HTTP/2", "HTTP/2.0", []string{"curl", "-sS", "--fail", "--http2", url}},
		{"curl without ALPN", "HTTP/1.1", []string{"curl", "-sS", "--fail", "--no-alpn", url}},
		{"curl TLS 1.2", "HTTP/2.0", []string{"curl", "-sS", "--fail", "--tls-max", "1.2", url}},
		{"Python urllib", "HTTP/1.1", []string{python, "-c", "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())", url}},
		{"Node fetch", "HTTP/1.1", []string{node, "-e", "fetch(process.argv[1]).then(async r => { if (!r.ok) throw new Error(r.status); console.log(await r.text()) })", url}},
		{"Node https", "HTTP/1.1", []string{node, "-e", "require('https').get(process.argv[1], r => { if (r.statusCode != 200) throw new Error(r.statusCode); r.pipe(process.stdout) })", url}},
		{"wget", "HTTP/1.1", []string{"wget", "-q", "-O", "-", url}},
	}
	if exec.Command(python, "-c", "import requests").Run() == nil {
		list = append(list, ordinary{"Python requests", "HTTP/1.1", []string{python, "-c", "import sys, requests; r = requests.get(sys.argv[1]); r.raise_for_status(); print(r.text)", url}})
	}
	return list
}

// TestOrdinaryClients gives each client the guest's environment and nothing
// else, and asks a host that needs a credential.
func TestOrdinaryClients(t *testing.T) {
	list := ordinaryClients(t, "https://api.example.org/thing")
	b, api := clientsBench(t)
	b.start(clientsManifest)
	// wget knows no variable: a guest's image has the bundle in place of the system's.
	bundle := map[string]string{"/etc/ssl/certs/ca-certificates.crt": filepath.Join(b.Bottle.Files, "ca-bundle.pem")}
	for _, c := range list {
		t.Run(c.name, func(t *testing.T) {
			b.Bottle.Bind = nil
			if c.name == "wget" {
				b.Bottle.Bind = bundle
			}
			api.Forget()
			r := b.run(c.argv...)
			seen := api.Requests()
			if r.Failed != nil || len(seen) != 1 {
				t.Fatalf("the server saw %d requests: %v", len(seen), r)
			}
			if got := seen[0].Header.Values("Authorization"); len(got) != 1 || got[0] != apiTokenIn {
				t.Errorf("the server saw Authorization %q", got)
			}
			if seen[0].URI != "/thing" || seen[0].Proto != c.proto {
				t.Errorf("the server saw %s %s, want /thing %s", seen[0].URI, seen[0].Proto, c.proto)
			}
			if strings.Contains(r.Out+r.Err, apiToken) || !strings.Contains(r.Out, `"/thing"`) {
				t.Errorf("the client was to read the echo, masked: %v", r)
			}
		})
	}
}

func TestGoClient(t *testing.T) {
	b, api := clientsBench(t)
	b.start(clientsManifest)
	seen := b.get("https://api.example.org/thing?q=1")
	if seen.Status != 200 || seen.Proto != "HTTP/2.0" || strings.Contains(seen.Body, apiToken) {
		t.Errorf("%+v", seen)
	}
	if got := api.Requests(); len(got) != 1 || got[0].Header.Get("Authorization") != apiTokenIn || got[0].URI != "/thing?q=1" {
		t.Errorf("the server saw %+v", got)
	}
}

func TestOpenSSLHandshakes(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("openssl"))
	b, _ := clientsBench(t)
	b.start(clientsManifest)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		r := b.run("openssl", "s_client", "-brief", "-verify_return_error", version, "-servername", "api.example.org", "-connect", "api.example.org:443")
		if r.Failed != nil || !strings.Contains(r.Out+r.Err, "Verification: OK") {
			t.Errorf("%s: %v", version, r)
		}
	}
	for _, version := range []string{"-tls1", "-tls1_1"} {
		if r := b.run("openssl", "s_client", "-brief", version, "-cipher", "ALL:@SECLEVEL=0", "-servername", "api.example.org", "-connect", "api.example.org:443"); r.Failed == nil {
			t.Errorf("%s was accepted: %v", version, r)
		}
	}
}

// TestGit clones and pushes by smart HTTP with git's own server behind a
// server that wants a password.
func TestGit(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("git"))
	b, _ := clientsBench(t)
	root := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "HOME="+root, "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	git("init", "-q", "--bare", root+"/repo.git")
	git("-C", root+"/repo.git", "config", "http.receivepack", "true")
	git("-c", "init.defaultBranch=main", "init", "-q", root+"/work")
	writeFile(t, root+"/work/big", bytes.Repeat([]byte("0123456789abcdef\n"), 200_000))
	git("-C", root+"/work", "add", "big")
	git("-C", root+"/work", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first")
	git("-C", root+"/work", "push", "-q", root+"/repo.git", "HEAD:refs/heads/main")
	git("-C", root+"/repo.git", "symbolic-ref", "HEAD", "refs/heads/main")
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	smart := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=t", "HOME=" + root},
	}
	b.serve(&lab.Site{Names: []string{"git.example.org"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "x-token" || password != apiToken {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		smart.ServeHTTP(w, r)
	})})
	b.start(clientsManifest)
	clone := filepath.Join(b.Bottle.Home, "clone")
	if r := b.run("git", "clone", "-q", "https://git.example.org/repo.git", clone); r.Failed != nil {
		t.Fatalf("git clone: %v", r)
	}
	if fi, err := os.Stat(clone + "/big"); err != nil || fi.Size() != 17*200_000 {
		t.Errorf("the cloned file: %v, %v", fi, err)
	}
	for _, argv := range [][]string{
		{"git", "-C", clone, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "second"},
		{"git", "-C", clone, "push", "-q", "origin", "HEAD:main"},
	} {
		if r := b.run(argv...); r.Failed != nil {
			t.Fatalf("%q: %v", argv, r)
		}
	}
}

// TestNpmInstall installs one package from a stand-in registry.
func TestNpmInstall(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("npm", "node"))
	b, _ := clientsBench(t)
	tarball := packageTarball(t)
	sum := sha512.Sum512(tarball)
	b.serve(&lab.Site{Names: []string{"packages.example.org"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/one-thing":
			writeJSON(w, map[string]any{
				"name": "one-thing", "dist-tags": map[string]any{"latest": "1.0.0"},
				"versions": map[string]any{"1.0.0": map[string]any{
					"name": "one-thing", "version": "1.0.0",
					"dist": map[string]any{
						"tarball":   "https://packages.example.org/one-thing/-/one-thing-1.0.0.tgz",
						"integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
					},
				}},
			})
		case "/one-thing/-/one-thing-1.0.0.tgz":
			_, _ = w.Write(tarball) // the client has gone
		default:
			http.NotFound(w, r)
		}
	})})
	b.start(clientsManifest)
	npm := lookPath(t, "npm")
	r := b.run(npm, "install", "--no-audit", "--no-fund", "--no-update-notifier", "--registry", "https://packages.example.org/", "one-thing")
	if r.Failed != nil {
		t.Fatalf("npm install: %v", r)
	}
	if data, err := os.ReadFile(filepath.Join(b.Bottle.Home, "node_modules/one-thing/index.js")); err != nil || string(data) != "module.exports = 1\n" {
		t.Errorf("the installed file: %q, %v", data, err)
	}
}

func packageTarball(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for name, text := range map[string]string{
		"package/package.json": `{"name":"one-thing","version":"1.0.0","main":"index.js"}`,
		"package/index.js":     "module.exports = 1\n",
	} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pythonPath is the interpreter itself: what the PATH names may be a script
// that needs its owner's home directory.
func pythonPath(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
