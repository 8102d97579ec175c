package dns

import (
	"encoding/base32"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

// Names of real services, in place of the wildcard in front of the domain that operators allow.
func TestCheckLabelsLetsHostsPass(t *testing.T) {
	for _, labels := range []string{
		"a", "www", "objects-origin", "raw", "pkg-containers", "d111111abcdef8", "d1vvhvl2y92vvt", "productionresultssa0",
		"rr3---sn-4g5edn6r", "prod-us-east-1-starport-layer-bucket", "ec2-203-0-113-25.compute-1", "123456789012.dkr.ecr.us-east-1",
		"my-domain-111122223333.d.codeartifact.us-west-2", "bucket.s3.dualstack.us-east-1",
		"vpce-0a1b2c3d4e5f67890-abcdefgh.bucket.vpce-svc.us-east-1", "0123456789abcdef0123456789abcdef",
		"550e8400-e29b-41d4-a716-446655440000", "8080-550e8400-e29b-41d4-a716-446655440000.preview",
		"da39a3ee5e6b4b0d3255bfef95601890afd80709", "x7w2k9q4m1z8v5t3r6y0u2i4o7p1a3s5", "project-name-git-feature-branch-name-some-team",
		"arn-aws-lambda-eu-central-1-account-with-a-rather-long-bucket-name", "storage-download.googleapis", "cdn-lfs-us-1",
		"a248.e", "e1234.dscb", "scontent-fra3-1", "prod-artifacts-bucket-550e8400-e29b-41d4-a716-446655440000",
		"ip-10-0-13-37.eu-central-1.compute", "1.2.3.4", "xn--mnchen-3ya", "_dmarc", "thequickbrownfoxjumpsoverthelazydogandrunsaway",
	} {
		if err := checkLabels(labels); err != nil {
			t.Errorf("%s: %v", labels, err)
		}
	}
}

func TestCheckLabelsRefuses(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	encode := func(bytes int, per int, text func([]byte) string) string {
		b := make([]byte, bytes)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		s := text(b)
		var labels []string
		for len(s) > per {
			labels, s = append(labels, s[:per]), s[per:]
		}
		return strings.Join(append(labels, s), ".")
	}
	b32 := func(b []byte) string {
		return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
	}
	refused := func(n int, what string, make func() string) {
		t.Helper()
		missed := 0
		for range 200 {
			if checkLabels(make()) == nil {
				missed++
			}
		}
		if missed > n {
			t.Errorf("%s: %d of 200 passed, at most %d may", what, missed, n)
		}
	}
	refused(0, "seven labels", func() string { return "a.b.c.d.e.f.g" })
	refused(0, "101 bytes", func() string { return strings.Repeat("ab-c.", 20) + "x" })
	refused(20, "32 bytes in base32", func() string { return encode(32, 63, b32) })
	refused(0, "31 bytes in hexadecimal", func() string { return encode(31, 63, hex.EncodeToString) })
	refused(0, "100 bytes in base32 over labels", func() string { return encode(100, 60, b32) })
	refused(40, "50 bytes in base32 over short labels", func() string { return encode(50, 20, b32) })
	for _, s := range []string{"a.b.c.d.e.f.g", strings.Repeat("ab-c.", 20) + "x"} {
		if err := checkLabels(s); err == nil || !strings.Contains(err.Error(), "name the host exactly") {
			t.Errorf("%s: the refusal gives no remedy: %v", s, err)
		}
	}
}

func FuzzCheckLabels(f *testing.F) {
	f.Add("a.b-c")
	f.Fuzz(func(t *testing.T, s string) {
		if err := checkLabels(s); err == nil && (len(s) > maxFreeBytes || strings.Count(s, ".") >= maxFreeLabels) {
			t.Fatalf("%q passed", s)
		}
	})
}
