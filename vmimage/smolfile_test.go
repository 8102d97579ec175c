package vmimage

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// smolfileKeys are all keys that smolvm's parser has (crates/smolvm-smolfile,
// of smolvm 1.9.2), which refuses every other one.
type smolfileKeys struct {
	Image        *string                 `toml:"image"`
	Entrypoint   []string                `toml:"entrypoint"`
	Cmd          []string                `toml:"cmd"`
	Env          []string                `toml:"env"`
	Secrets      map[string]secretSource `toml:"secrets"`
	Workdir      *string                 `toml:"workdir"`
	CPUs         *uint8                  `toml:"cpus"`
	Memory       *uint32                 `toml:"memory"`
	Net          *bool                   `toml:"net"`
	GPU          *bool                   `toml:"gpu"`
	GPUVRAM      *uint32                 `toml:"gpu_vram"`
	Rosetta      *bool                   `toml:"rosetta"`
	CUDA         *bool                   `toml:"cuda"`
	AutoGraph    *bool                   `toml:"auto_graph"`
	DockerSocket *bool                   `toml:"docker_socket"`
	Storage      *uint64                 `toml:"storage"`
	Overlay      *uint64                 `toml:"overlay"`
	Ports        []string                `toml:"ports"`
	Volumes      []string                `toml:"volumes"`
	Init         []string                `toml:"init"`
	Artifact     *struct{}               `toml:"artifact"` // of this and what follows no key is written
	Pack         *struct{}               `toml:"pack"`
	Network      *smolfileNetwork        `toml:"network"`
	Fork         *struct{}               `toml:"fork"`
	Health       *struct{}               `toml:"health"`
	Restart      *struct{}               `toml:"restart"`
	Auth         *struct{}               `toml:"auth"`
	Service      *struct{}               `toml:"service"`
	Dev          *smolfileDev            `toml:"dev"`
}

type secretSource struct {
	FromEnv  string `toml:"from_env"`
	FromFile string `toml:"from_file"`
}

type smolfileNetwork struct {
	AllowHosts []string `toml:"allow_hosts"`
	AllowCIDRs []string `toml:"allow_cidrs"`
}

type smolfileDev struct {
	Volumes []string `toml:"volumes"`
	Env     []string `toml:"env"`
	Init    []string `toml:"init"`
	Workdir *string  `toml:"workdir"`
	Ports   []string `toml:"ports"`
}

func parseSmolfile(text []byte) (smolfileKeys, error) {
	var s smolfileKeys
	err := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields().Decode(&s)
	return s, err
}

// TestSmolfileHasKnownKeys reads the Smolfile as strictly as smolvm does.
func TestSmolfileHasKnownKeys(t *testing.T) {
	p := testPlan(t, "true")
	p.Env[0].Value = `odd "value" \ <&>` // no plan has such a one; a Smolfile could
	s, err := parseSmolfile(guestFiles(t, p, testInputs())["Smolfile"].Data)
	if err != nil {
		t.Fatal(err)
	}
	if s.Net == nil || !*s.Net || s.Dev == nil || len(s.Env) != len(p.Env) || len(s.Secrets) != 0 {
		t.Errorf("%+v", s)
	}
	for i, e := range p.Env {
		if want := e.Name + "=" + e.Resolve(DefaultAt); s.Env[i] != want {
			t.Errorf("env %q, want %q", s.Env[i], want)
		}
	}
	for _, v := range s.Dev.Volumes { // HOST:GUEST[:ro], the host's a directory, the guest's absolute
		if parts := strings.Split(v, ":"); len(parts) != 3 || !filepath.IsAbs(parts[1]) || parts[2] != "ro" {
			t.Errorf("volume %q", v)
		}
	}
	for _, bad := range []string{"net_backend = \"virtio-net\"\n", "[dev]\nimage = \"x\"\n", "[secrets]\nX = { from = \"Y\" }\n"} {
		if _, err := parseSmolfile([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestSmolfileInit runs what the file has the guest run at every start, twice:
// the second start must leave everything as it is.
func TestSmolfileInit(t *testing.T) {
	root := t.TempDir()
	in := testInputs()
	in.At = "/guest/gatewayd"
	files := guestFiles(t, testPlan(t, "true"), in)
	s, err := parseSmolfile(files["Smolfile"].Data)
	if err != nil || len(s.Dev.Init) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	mounted := filepath.Join(root, in.At+".host")
	for path, f := range files {
		name := filepath.Join(mounted, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := strings.NewReplacer("/guest/", root+"/guest/", "/etc/ssl", root+"/etc/ssl").Replace(s.Dev.Init[0])
	for range 2 {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	bundle, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || string(bundle) != string(files["ca.pem"].Data) {
		t.Errorf("the system's bundle is %q, %v", bundle, err)
	}
	if _, err := os.Stat(filepath.Join(root, in.At, "codex/auth.json")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, in.At, "gatewayd.host")); err == nil {
		t.Error("the second start copied the directory into itself")
	}
}
