package oci

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"gatewayd/lab/privileged"
	"gatewayd/plan"
	"gatewayd/vmimage"
)

var (
	passwd = entry{name: "etc/passwd", data: "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1001::/home/agent:/bin/sh\n"}
	group  = entry{name: "etc/group", data: "root:x:0:\nagents:x:1001:\nwheel:x:10:agent\n"}
)

// Images of the three layouts, as far as trust goes.
var (
	debian = [][]entry{{
		{name: "etc/"}, {name: "etc/ssl/", mode: 0o751, gid: 5}, {name: "etc/ssl/certs/"}, passwd, group,
		{name: "etc/debian_version", data: "12.1\n"},
		{name: "etc/ssl/certs/ca-certificates.crt", data: strings.TrimSpace(certificate("root 1")), mode: 0o640, gid: 7},
		{name: "etc/ssl/certs/root.pem", link: "/usr/share/ca-certificates/root.crt"},
		{name: "etc/ssl/certs/0123abcd.0", link: "root.pem"},
		{name: "usr/lib/ssl/"}, {name: "usr/lib/ssl/certs", link: "/etc/ssl/certs"},
		{name: "usr/sbin/update-ca-certificates", mode: 0o755},
	}}
	alpine = [][]entry{{
		{name: "etc/"}, passwd, group, {name: "etc/alpine-release", data: "3.22\n"},
		{name: "etc/ssl/certs/ca-certificates.crt", data: certificate("root 1")},
		{name: "etc/ssl/cert.pem", link: "certs/ca-certificates.crt"},
		{name: "usr/share/ca-certificates/"},
	}}
	fedora = [][]entry{{
		{name: "etc/"}, passwd, group, {name: "etc/ssl/"}, {name: "etc/ssl/certs", link: "../pki/tls/certs"},
		{name: "etc/pki/tls/certs/ca-bundle.crt", link: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"},
		{name: "etc/pki/tls/cert.pem", link: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"},
		{name: "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", data: "# a comment\n" + certificate("root 1"), mode: 0o444},
		{name: "etc/pki/ca-trust/source/anchors/"},
	}}
)

func TestLayouts(t *testing.T) {
	ca := authority(t)
	block, _ := pem.Decode(ca)
	hash, err := subjectHash(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		base           [][]entry
		bundle, anchor string
		mode           int64
		gid            int
		byHash         bool
	}{
		{"Debian", debian, "/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates/gatewayd-dev.crt", 0o640, 7, true},
		{"Alpine", alpine, "/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates/gatewayd-dev.crt", 0o644, 0, false},
		{"Fedora", fedora, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/ca-trust/source/anchors/gatewayd-dev.pem", 0o444, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := baseImage(t, v1.Config{User: "agent", Env: []string{"PATH=/bin", "JAVA_TOOL_OPTIONS=-Xmx1g", "SSL_CERT_FILE=/mine"}}, c.base...)
			r := add(t, open(t, saveTar(t, base)), ca)
			files := flatten(t, r.Image)
			got := files[c.bundle]
			if want := strings.TrimSpace(c.base[0][slices.IndexFunc(c.base[0], func(e entry) bool { return "/"+e.name == c.bundle })].data) + "\n" + string(ca); got.data != want {
				t.Errorf("bundle:\n%s\nwant\n%s", got.data, want)
			}
			if got.Mode != c.mode || got.Gid != c.gid {
				t.Errorf("bundle: mode %o, group %d", got.Mode, got.Gid)
			}
			if files[c.anchor].data != string(ca) {
				t.Errorf("no anchor at %s: %q", c.anchor, r.Changed)
			}
			if link := files["/etc/gatewayd/ca-bundle.pem"]; link.Linkname != c.bundle {
				t.Errorf("the guest's bundle leads to %q", link.Linkname)
			}
			byHash := files["/etc/ssl/certs/"+hash+".0"]
			if byHash.Header != nil != c.byHash || c.byHash && (byHash.Linkname != "gatewayd-dev.pem" || files["/etc/ssl/certs/gatewayd-dev.pem"].data != string(ca)) {
				t.Errorf("by hash: %+v", byHash)
			}
			if len(r.Notes) > 0 {
				t.Errorf("notes: %q", r.Notes)
			}
			checkGuestFiles(t, r, files)
		})
	}
}

// checkGuestFiles compares owners and modes of the guest files, and the environment.
func checkGuestFiles(t *testing.T, r *Result, files map[string]found) {
	t.Helper()
	for _, w := range []struct {
		name     string
		mode     int64
		uid, gid int
	}{
		{"/etc/gatewayd", 0o755, 0, 0}, {"/etc/gatewayd/ca.pem", 0o644, 0, 0}, {"/etc/gatewayd/codex", 0o700, 1000, 1001},
		{"/etc/gatewayd/codex/auth.json", 0o600, 1000, 1001}, {"/etc/gatewayd/env", 0o600, 1000, 1001}, {"/etc", 0o755, 0, 0},
	} {
		f := files[w.name]
		if f.Header == nil || f.Mode != w.mode || f.Uid != w.uid || f.Gid != w.gid {
			t.Errorf("%s: %+v, want %+v", w.name, f.Header, w)
		}
	}
	if files["/etc/gatewayd/Smolfile"].Header != nil {
		t.Error("the image holds the Smolfile")
	}
	for name, f := range files {
		if strings.Contains(f.data, "canary") {
			t.Errorf("%s holds a secret of the host", name)
		}
	}
	config, err := r.Image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	env := config.Config.Env
	want := []string{"PATH=/bin", "JAVA_TOOL_OPTIONS=-Xmx1g -Djavax.net.ssl.trustStore=/etc/gatewayd/ca-bundle.jks", "SSL_CERT_FILE=/etc/gatewayd/ca-bundle.pem"}
	if len(env) < 10 || !slices.Equal(env[:3], want) || !slices.Contains(env, "CODEX_HOME=/etc/gatewayd/codex") {
		t.Errorf("environment %q", env)
	}
	if l := config.Config.Labels; l[LabelBottle] != "dev" || !strings.HasPrefix(l[LabelPlan], "sha256:") {
		t.Errorf("labels %q", l)
	}
}

// TestDirectoriesKeepTheirModes: a layer names the directories on the way, and so could change them.
func TestDirectoriesKeepTheirModes(t *testing.T) {
	files := flatten(t, add(t, open(t, saveTar(t, baseImage(t, v1.Config{}, debian...))), authority(t)).Image)
	if f := files["/etc/ssl"]; f.Mode != 0o751 || f.Gid != 5 || f.ModTime.Unix() != 1_700_000_000 {
		t.Errorf("%+v", f.Header)
	}
}

// TestAgain: an image that was made here is a base like any other, and nothing is there twice.
func TestAgain(t *testing.T) {
	ca := authority(t)
	once := add(t, open(t, saveTar(t, baseImage(t, v1.Config{}, debian...))), ca)
	file := filepath.Join(t.TempDir(), "once.tar")
	if err := WriteTar(file, once.Image, "x:y"); err != nil {
		t.Fatal(err)
	}
	twice := add(t, open(t, file), ca)
	a, b := flatten(t, once.Image), flatten(t, twice.Image)
	if len(a) != len(b) {
		t.Errorf("%d files became %d", len(a), len(b))
	}
	for name, f := range a {
		if b[name].data != f.data || b[name].Linkname != f.Linkname {
			t.Errorf("%s changed", name)
		}
	}
}

// TestSameDigest: equal inputs give equal images in equal files, whatever form the base has.
func TestSameDigest(t *testing.T) {
	ca := authority(t)
	image := baseImage(t, v1.Config{}, debian...)
	var digests []v1.Hash
	var files [][]byte
	for _, base := range []string{saveLayout(t, image), saveLayout(t, image), saveTar(t, image), saveTar(t, image)} {
		r := add(t, open(t, base), ca)
		d, err := r.Image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "out.tar")
		if err := WriteTar(file, r.Image, "x:y"); err != nil {
			t.Fatal(err)
		}
		digests, files = append(digests, d), append(files, readFile(t, file))
	}
	if digests[0] != digests[1] || digests[2] != digests[3] {
		t.Errorf("digests %v", digests)
	}
	for _, f := range files[1:] {
		if !bytes.Equal(f, files[0]) {
			t.Error("the files differ")
		}
	}
}

func TestNoStores(t *testing.T) {
	ca := authority(t)
	r := add(t, open(t, saveTar(t, baseImage(t, v1.Config{}, []entry{{name: "bin/agent", data: "x", mode: 0o755}}))), ca)
	files := flatten(t, r.Image)
	want := certificate("a root of the host") + string(ca)
	if got := files["/etc/ssl/certs/ca-certificates.crt"].data; got != want || files["/etc/gatewayd/ca-bundle.pem"].data != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "no bundle") {
		t.Errorf("notes %q", r.Notes)
	}
}

func TestUsers(t *testing.T) {
	base := [][]entry{{passwd, group}}
	for _, c := range []struct {
		user     string
		uid, gid int
		err      string
	}{
		{"", 0, 0, ""}, {"agent", 1000, 1001, ""}, {"1000", 1000, 1001, ""}, {"agent:wheel", 1000, 10, ""}, {"agent:0", 1000, 0, ""},
		{"4242", 4242, 0, ""}, {"4242:4243", 4242, 4243, ""}, {"nobody", 0, 0, "nobody"}, {"agent:nobody", 0, 0, "nobody"},
		{"-1", 0, 0, "-1"}, {"99999999999", 0, 0, "9999"},
	} {
		r, err := open(t, saveTar(t, baseImage(t, v1.Config{User: c.user}, base...))).Add(t.Context(), testPlan(t, "true"), inputs(authority(t)))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.user, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.user, err)
			continue
		}
		if f := flatten(t, r.Image)["/etc/gatewayd/codex/auth.json"]; f.Uid != c.uid || f.Gid != c.gid {
			t.Errorf("%q: %d:%d", c.user, f.Uid, f.Gid)
		}
	}
}

// TestLentIsRefused: an image would keep what was lent for an hour.
func TestLentIsRefused(t *testing.T) {
	b := open(t, saveTar(t, baseImage(t, v1.Config{}, debian...)))
	if _, err := b.Add(t.Context(), testPlan(t, "lend"), inputs(authority(t))); !errors.Is(err, ErrLent) {
		t.Errorf("got %v", err)
	}
}

// TestInTheWay: what an image has where a file must go is not overrun.
func TestInTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"file for directory": {[]entry{{name: "etc/gatewayd", data: "x"}}, "file is where a directory"},
		"directory for file": {[]entry{{name: "etc/gatewayd/ca.pem/"}}, "another kind"},
		"loop":               {[]entry{{name: "etc/gatewayd", link: "gatewayd"}}, "too many symbolic links"},
		"file below file":    {[]entry{{name: "etc/gatewayd", link: "/etc/ssl/certs/ca-certificates.crt"}}, "would lie below"},
	} {
		_, err := open(t, saveTar(t, baseImage(t, v1.Config{}, c.entries))).Add(t.Context(), testPlan(t, "true"), inputs(authority(t)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestSubjectHash compares with OpenSSL, which makes and reads such links.
func TestSubjectHash(t *testing.T) {
	privileged.Require(t, privileged.Program("openssl"))
	ca := authority(t)
	file := writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), ca)
	out, err := exec.CommandContext(t.Context(), "openssl", "x509", "-in", file, "-noout", "-subject_hash").Output()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(ca)
	if got, err := subjectHash(block.Bytes); err != nil || got != strings.TrimSpace(string(out)) {
		t.Errorf("got %s, %v; OpenSSL says %s", got, err, out)
	}
}

// TestJavaStores: stores are found wherever a JVM has them, through links, and each is changed once; one that cannot be is
// named.
func TestJavaStores(t *testing.T) {
	ca := authority(t)
	block, _ := pem.Decode(ca)
	store := ""
	made, err := vmimage.GuestFiles(testPlan(t, "true"), inputs([]byte(certificate("another"))))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range made {
		if f.Path == plan.TrustStoreFile {
			store = string(f.Data)
		}
	}
	base := append(slices.Clone(debian), []entry{
		{name: "etc/ssl/certs/java/cacerts", data: store, mode: 0o600, gid: 3},
		{name: "usr/lib/jvm/java-17-openjdk-amd64/lib/security/cacerts", link: "/etc/ssl/certs/java/cacerts"},
		{name: "usr/lib/jvm/default-java", link: "java-17-openjdk-amd64"},
		{name: "opt/java/openjdk/lib/security/cacerts", data: store},
		{name: "opt/other/jre/lib/security/cacerts", data: "of a format of its own"},
		{name: "opt/gone/lib/security/cacerts", link: "/nowhere"},
		{name: "opt/cacerts", data: store},
	})
	r := add(t, open(t, saveTar(t, baseImage(t, v1.Config{}, base...))), ca)
	files := flatten(t, r.Image)
	for name, want := range map[string]bool{"/etc/ssl/certs/java/cacerts": true, "/opt/java/openjdk/lib/security/cacerts": true, "/opt/cacerts": false} {
		if got := strings.Contains(files[name].data, string(block.Bytes)); got != want {
			t.Errorf("%s holds the authority: %v", name, got)
		}
	}
	if f := files["/etc/ssl/certs/java/cacerts"]; f.Mode != 0o600 || f.Gid != 3 {
		t.Errorf("%+v", f.Header)
	}
	if got := files["/etc/gatewayd/ca-bundle.jks"].Linkname; got != "/etc/ssl/certs/java/cacerts" {
		t.Errorf("the guest's store leads to %q", got)
	}
	if f := files["/usr/lib/jvm/java-17-openjdk-amd64/lib/security/cacerts"]; f.Linkname != "/etc/ssl/certs/java/cacerts" {
		t.Errorf("a link became something else: %+v", f.Header)
	}
	if len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "/opt/other/jre/lib/security/cacerts is left as it is") {
		t.Errorf("notes %q", r.Notes)
	}
}

// TestHashTaken: another authority whose name has the same hash keeps its link.
func TestHashTaken(t *testing.T) {
	ca := authority(t)
	block, _ := pem.Decode(ca)
	hash, err := subjectHash(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	base := append(slices.Clone(debian), []entry{{name: "etc/ssl/certs/" + hash + ".0", link: "root.pem"}})
	files := flatten(t, add(t, open(t, saveTar(t, baseImage(t, v1.Config{}, base...))), ca).Image)
	dir := "/etc/ssl/certs/"
	if files[dir+hash+".0"].Linkname != "root.pem" || files[dir+hash+".1"].Linkname != "gatewayd-dev.pem" {
		t.Errorf("%+v %+v", files[dir+hash+".0"].Header, files[dir+hash+".1"].Header)
	}
}
