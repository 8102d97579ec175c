package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
)

// debianVariable names the directory that .ci/deps unpacks a small Debian into.
const debianVariable = "GATEWAYD_TEST_DEBIAN"

const imageManifest = `
egress:
  routes:
    - host: api.example.org
    - { host: direct.example.org, pipelock: { tls_passthrough: true } }
`

// TestDebianImage puts a bottle's files on top of a real Debian and runs its own curl and OpenSSL from there: with nothing but the
// image's trust stores they take the gateway's word for a host, and nobody's whom the image does not know.
func TestDebianImage(t *testing.T) {
	debian := os.Getenv(debianVariable)
	privileged.Require(t, privileged.Root, privileged.Program("tar", "chroot"), privileged.File(filepath.Join(debian, "usr/bin/curl")))
	b := newBench(t, nil)
	api := b.serve(&lab.Site{Names: []string{"api.example.org"}})
	b.serveEcho("direct.example.org", &tls.Config{})
	b.start(imageManifest)
	saved, laid := debianImages(t, debian)
	build := func(base, name string, more ...string) string {
		t.Helper()
		out := filepath.Join(t.TempDir(), name)
		if _, err := b.Gateway.Command(t.Context(), append([]string{"image", bottleName, "--base", base, "-o", out}, more...)...); err != nil {
			t.Fatal(err)
		}
		return out
	}
	one, two := fromArchive(t, build(saved, "one.tar")), fromArchive(t, build(saved, "two.tar"))
	if a, b := digestOf(t, one), digestOf(t, two); a != b {
		t.Errorf("the same plan gave %v and %v", a, b)
	}
	if a, b := topLayer(t, one), topLayer(t, fromLayout(t, build(laid, "laid", "--format", "oci"))); a != b {
		t.Errorf("the layers are %v over a saved image and %v over a layout", a, b)
	}

	root := t.TempDir()
	unpackImage(t, one, root)
	writeFile(t, filepath.Join(root, "etc/resolv.conf"), []byte("nameserver "+b.Bottle.Gateway.String()+"\n"))
	path := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	config, err := one.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	in := func(root string, env []string, argv ...string) result {
		b.Bottle.Env, b.Bottle.Dir = env, "/"
		return b.run(append([]string{lookPath(t, "chroot"), root}, argv...)...)
	}
	curl := func(host string) []string {
		return []string{"curl", "-sS", "--fail", "--resolve", host + ":443:93.184.216.34", "https://" + host + "/thing"}
	}
	for name, env := range map[string][]string{"the stores alone": path, "the image's environment": config.Config.Env} {
		api.Forget()
		if r := in(root, env, "curl", "-sS", "--fail", "https://api.example.org/thing"); r.Failed != nil || len(api.Requests()) != 1 {
			t.Errorf("%s: the server saw %d requests of curl: %v", name, len(api.Requests()), r)
		}
		r := in(root, env, "openssl", "s_client", "-brief", "-verify_return_error", "-servername", "api.example.org", "-connect", "api.example.org:443")
		if r.Failed != nil || !strings.Contains(r.Out+r.Err, "Verification: OK") {
			t.Errorf("%s: OpenSSL: %v", name, r)
		}
		if r := in(root, env, "curl", "-sS", "https://direct.example.org/"); exitCode(r) != 60 {
			t.Errorf("%s: curl took another authority's word: %v", name, r)
		}
	}
	if r := in(debian, path, curl("api.example.org")...); exitCode(r) != 60 {
		t.Errorf("without the layer curl took the gateway's word: %v", r)
	}
	if r := in(root, path, curl("api.example.org")...); r.Failed != nil {
		t.Errorf("and with it: %v", r)
	}
}

// exitCode is what the program left, by curl(1) 60 for a certificate that it does not trust; -1 if it did not run.
func exitCode(r result) int {
	if r.Failed == nil {
		return 0
	}
	var code int
	for _, word := range strings.Fields(r.Err) {
		if strings.HasPrefix(word, "(") && strings.HasSuffix(word, ")") && json.Unmarshal([]byte(strings.Trim(word, "()")), &code) == nil {
			return code
		}
	}
	return -1
}

// debianImages makes an image of the directory, as docker save writes it and as an OCI layout.
func debianImages(t *testing.T, root string) (saved, laid string) {
	t.Helper()
	dir := t.TempDir()
	rootfs := filepath.Join(dir, "layer.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", root, "--sort=name", "-cf", rootfs, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	layer, err := tarball.LayerFromFile(rootfs, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "amd64", OS: "linux",
		Config: v1.Config{Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"/bin/sh"}}})
	if err != nil {
		t.Fatal(err)
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		t.Fatal(err)
	}
	laid = filepath.Join(dir, "laid")
	l, err := layout.Write(laid, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	return saveImage(t, dir, image, rootfs), laid
}

// saveImage writes an image of one layer as docker save does: the layer as it is, beside the configuration (moby, image/tarexport).
func saveImage(t *testing.T, dir string, image v1.Image, rootfs string) string {
	t.Helper()
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(config)
	id := hex.EncodeToString(sum[:])
	manifest, err := json.Marshal([]map[string]any{{"Config": id + ".json", "RepoTags": []string{"debian:test"}, "Layers": []string{"0/layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := os.ReadFile(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "saved.tar")
	f, err := os.Create(saved)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, e := range []struct {
		name string
		data []byte
	}{{id + ".json", config}, {"0/layer.tar", layer}, {"manifest.json", manifest}} {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, bytes.NewReader(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return saved
}

func fromArchive(t *testing.T, file string) v1.Image {
	t.Helper()
	image, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func fromLayout(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("index %+v, %v", manifest, err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// digestOf is the digest of an image's configuration, which has those of all its layers.
func digestOf(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	h, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// topLayer is the digest of an image's last layer as it is unpacked.
func topLayer(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs[len(config.RootFS.DiffIDs)-1]
}

// unpackImage writes the files of an image below dir.
func unpackImage(t *testing.T, image v1.Image, dir string) {
	t.Helper()
	files := mutate.Extract(image)
	defer files.Close()
	c := exec.CommandContext(t.Context(), "tar", "-C", dir, "-xpf", "-")
	c.Stdin = files
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
}
