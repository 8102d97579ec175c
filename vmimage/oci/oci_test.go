package oci

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"gatewayd/plan"
	"gatewayd/vmimage"
)

const hostAuth = `{"tokens":{"id_token":"e30.eyJlbWFpbCI6ImEifQ.eA","access_token":"canary-access","refresh_token":"canary-refresh","account_id":"acc-1"},"last_refresh":"2026-11-01T10:00:00Z"}`

// testHost has one file.
type testHost struct{}

func (testHost) ReadFile(path string) ([]byte, error) {
	if path != "/home/op/.codex/auth.json" {
		return nil, fs.ErrNotExist
	}
	return []byte(hostAuth), nil
}
func (testHost) Getenv(string) string { return "" }
func (testHost) Home() string         { return "/home/op" }
func (testHost) Now() time.Time       { return time.Unix(1790000000, 0) }

func testPlan(t testing.TB, mode string) *plan.Plan {
	t.Helper()
	m, err := plan.ParseManifest("dev.bottle.yaml", []byte("bottle: dev\nagent_provider: {template: codex, forward_host_credentials: "+mode+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Provision(m, testHost{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// authority makes a certificate whose name has what a canonical form must deal with.
func authority(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{Organization: []string{"gatewayd"},
		OrganizationalUnit: []string{"Dev  Bottle "}, CommonName: "gatewayd ÄB0C"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func certificate(content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(content)}))
}

func inputs(ca []byte) vmimage.Inputs {
	return vmimage.Inputs{CAPEM: ca, SystemRootsPEM: []byte(certificate("a root of the host")),
		Network: vmimage.Network{Guest: netip.MustParsePrefix("198.18.0.2/30"), Gateway: netip.MustParseAddr("198.18.0.1"),
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
}

// entry is one of a layer. A name that ends in / is a directory; link makes a symbolic link, hard a hard one.
type entry struct {
	name, data, link, hard string
	mode                   int64
	uid, gid               int
}

func layerTar(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.uid, Gid: e.gid, Size: int64(len(e.data)), ModTime: time.Unix(1_700_000_000, 0)}
		switch {
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case e.hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, e.hard
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// baseImage makes an image of layers with go-containerregistry's own means.
func baseImage(t testing.TB, config v1.Config, layers ...[]entry) v1.Image {
	t.Helper()
	image := empty.Image
	for _, entries := range layers {
		data := layerTar(t, entries)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, l); err != nil {
			t.Fatal(err)
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

// saveTar writes an image as `docker save` did.
func saveTar(t testing.TB, image v1.Image) string {
	t.Helper()
	tag, err := name.NewTag("base:latest")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "base.tar")
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	return file
}

func saveLayout(t testing.TB, image v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(image)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, file string) *Base {
	t.Helper()
	b, err := Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func add(t testing.TB, b *Base, ca []byte) *Result {
	t.Helper()
	r, err := b.Add(t.Context(), testPlan(t, "true"), inputs(ca))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// found is a file of an image as go-containerregistry flattens it.
type found struct {
	*tar.Header
	data string
}

func flatten(t testing.TB, image v1.Image) map[string]found {
	t.Helper()
	in := mutate.Extract(image)
	defer in.Close()
	files := map[string]found{}
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files["/"+strings.Trim(h.Name, "/")] = found{h, string(data)}
	}
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
