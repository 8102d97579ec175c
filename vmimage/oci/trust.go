package oci

import (
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"gatewayd/plan"
	"gatewayd/vmimage"
)

// bundles are where distributions have all authorities in one file. Some are links to others.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
	"/etc/ssl/cert.pem",                                 // Alpine's OpenSSL
	"/usr/lib/ssl/cert.pem",                             // Debian's OpenSSL
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora and its kin
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/tls/cert.pem",
	"/etc/ssl/ca-bundle.pem", // openSUSE
}

// anchors are the directories from which a distribution's own program makes its bundles anew, and the signs of each
// distribution.
var anchors = []struct {
	dir, suffix string
	signs       []string
}{
	{"/usr/local/share/ca-certificates", ".crt", []string{"/usr/sbin/update-ca-certificates", "/etc/debian_version", "/etc/alpine-release"}},
	{"/etc/pki/ca-trust/source/anchors", ".pem", []string{"/etc/pki/ca-trust"}},
}

// hashed is where OpenSSL finds an authority by its name where no bundle is named.
const hashed = "/etc/ssl/certs"

// stores are the trust stores that an image has, by their names without links.
type stores struct{ bundles, java map[string]*node }

// findStores follows the names by which clients know their trust stores.
func (d *draft) findStores() stores {
	s := stores{map[string]*node{}, map[string]*node{}}
	note := func(into map[string]*node, name string) {
		if real, n := d.base.tree.find(name); n != nil && n.kind == file {
			into[real] = n
		}
	}
	for _, name := range bundles {
		note(s.bundles, name)
	}
	java := []string{"/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts", "/etc/pki/java/cacerts"}
	d.base.tree.walk(func(name string, _ *node) {
		if dir, base := path.Split(name); (base == "cacerts" || base == "jssecacerts") && strings.HasSuffix(dir, "/lib/security/") {
			java = append(java, name)
		}
	})
	for _, name := range java {
		note(s.java, name)
	}
	return s
}

// wanted are the files whose content counts.
func (d *draft) wanted(s stores) map[location]bool {
	want := map[location]bool{}
	for _, group := range []map[string]*node{s.bundles, s.java} {
		for _, n := range group {
			want[n.content] = true
		}
	}
	for _, name := range []string{passwdFile, groupFile} {
		if _, n := d.base.tree.find(name); n != nil && n.kind == file {
			want[n.content] = true
		}
	}
	return want
}

// trust puts the authority wherever the image keeps such. Where the image has a bundle or key store, the guest files' own
// become links to it: the variables that name them then mean what the image trusts, and not what the host does.
func (d *draft) trust(s stores, at string) error {
	if err := d.anchor(); err != nil {
		return err
	}
	if err := d.linkByHash(len(s.bundles) == 0); err != nil {
		return err
	}
	if err := d.trustBundles(s.bundles, at); err != nil {
		return err
	}
	return d.trustJava(s.java, at)
}

func (d *draft) trustBundles(found map[string]*node, at string) error {
	if len(found) == 0 {
		d.note("the image has no bundle of authorities; it gets the host's with the bottle's at %s", bundles[0])
		return d.set(bundles[0], change{mode: 0o644, data: d.bundle})
	}
	for real, n := range found {
		d.replace(real, n, withCertificate(d.contents[n.content], d.ca, d.der))
	}
	for _, name := range bundles {
		if real, _ := d.base.tree.find(name); found[real] != nil {
			return d.set(path.Join(at, plan.BundleFile), change{link: real})
		}
	}
	return nil
}

func (d *draft) trustJava(found map[string]*node, at string) error {
	linked := false
	for _, real := range slices.Sorted(maps.Keys(found)) {
		n := found[real]
		store, err := vmimage.AddTrusted(d.contents[n.content], d.name, d.der)
		if err != nil {
			d.note("%s is left as it is: %v; Java trusts the bottle's authority by %s alone", real, err, javaOptions)
			continue
		}
		d.replace(real, n, store)
		if linked {
			continue
		}
		if err := d.set(path.Join(at, plan.TrustStoreFile), change{link: real}); err != nil {
			return err
		}
		linked = true
	}
	return nil
}

// anchor puts the authority where the distribution's own program will find it.
func (d *draft) anchor() error {
	for _, a := range anchors {
		if !slices.ContainsFunc(append([]string{a.dir}, a.signs...), func(name string) bool {
			_, n := d.base.tree.find(name)
			return n != nil
		}) {
			continue
		}
		if err := d.set(path.Join(a.dir, d.name+a.suffix), change{mode: 0o644, data: d.ca}); err != nil {
			return err
		}
	}
	return nil
}

var hashLink = regexp.MustCompile(`^[0-9a-f]{8}\.[0-9]+$`)

// linkByHash makes the link by which OpenSSL finds the authority in a directory (X509_LOOKUP_hash_dir(3)), if the image has
// such links, or has nothing yet.
func (d *draft) linkByHash(fresh bool) error {
	_, dir := d.base.tree.find(hashed)
	has := dir != nil && dir.kind == directory
	if has && !fresh {
		has = false
		for name := range dir.children {
			has = has || hashLink.MatchString(name)
		}
	}
	if !has && !fresh {
		return nil
	}
	hash, err := subjectHash(d.der)
	if err != nil {
		return err
	}
	own := d.name + ".pem"
	for i := range 100 {
		link := fmt.Sprintf("%s.%d", hash, i)
		if dir != nil {
			if n := dir.children[link]; n != nil && (n.kind != symlink || n.link != own) {
				continue // an authority whose name has the same hash
			}
		}
		return errors.Join(
			d.set(path.Join(hashed, own), change{mode: 0o644, data: d.ca}),
			d.set(path.Join(hashed, link), change{link: own}))
	}
	d.note("%s has a hundred links %s.N already; OpenSSL does not find the authority by its name there", hashed, hash)
	return nil
}

// subjectHash is what `openssl x509 -subject_hash` prints: the first four bytes, the last one first, of the SHA-1 of the
// subject in canonical form (X509_NAME_hash_ex(3), x509_name_canon in OpenSSL's crypto/x509/x_name.c).
func subjectHash(der []byte) (string, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", fmt.Errorf("read the authority: %w", err)
	}
	canonical, err := canonicalName(cert.RawSubject)
	if err != nil {
		return "", fmt.Errorf("read the authority's subject: %w", err)
	}
	sum := sha1.Sum(canonical)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}
