package inject

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"
	"text/template"
)

// TestSecretNeverShows renders a secret in every way that programs log things
// and looks for its bytes in several encodings.
func TestSecretNeverShows(t *testing.T) {
	const value = "sk-canary-93f1c5"
	s := NewSecret(value)
	type inner struct {
		hidden  Secret
		Visible Secret
	}
	holder := struct {
		in  inner
		ptr *Secret
		m   map[string]Secret
		sl  []Secret
		any any
	}{inner{s, s}, &s, map[string]Secret{"k": s}, []Secret{s}, s}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%T", "%p", "%10.3s", "%-20v", "% x", "%z"} {
		for _, v := range []any{s, &s, holder, &holder, []any{s}, map[string]any{"a": s}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	fmt.Fprintln(&out, s, &s, holder, fmt.Errorf("wrapped: %w %v", errors.New("x"), s))
	log.New(&out, "", 0).Println(s, holder)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "secret", s, "ptr", &s, "holder", holder, "group", slog.GroupValue(slog.Any("in", s)))
	}
	for _, v := range []any{s, &s, inner{s, s}, map[string]Secret{"k": s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	b, err := xml.Marshal(inner{s, s})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if err := template.Must(template.New("").Parse("{{.Visible}} {{.}} {{printf \"%q\" .Visible}}")).Execute(&out, inner{s, s}); err != nil {
		t.Fatal(err)
	}
	low := strings.ToLower(out.String())
	for _, form := range []string{"canary", "93f1c5", fmt.Sprintf("%x", "canary"), fmt.Sprintf("% x", "canary"), "63, 0x61", "[115 107 45"} {
		if strings.Contains(low, form) {
			t.Errorf("%q shows in\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing shows the placeholder")
	}
	if s.Reveal() != value {
		t.Error("Reveal does not return the value")
	}
}

func TestSecretZero(t *testing.T) {
	if !(Secret{}).IsZero() || !NewSecret("").IsZero() || NewSecret("x").IsZero() || (Secret{}).Reveal() != "" {
		t.Error("IsZero")
	}
	if (Secret{}).String() != redacted {
		t.Error("the zero secret shows that it is empty")
	}
}
