package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Outcome is what one step showed.
type Outcome struct {
	// Title names the step, Tried says what the bottle did.
	Title string `json:"title"`
	Tried string `json:"tried"`
	// Facts are what was seen on either side, each judged.
	Facts []Fact `json:"facts"`
	// OK says that every fact is as expected.
	OK bool `json:"ok"`
}

// Fact is one thing seen.
type Fact struct {
	Text string `json:"text"`
	OK   bool   `json:"ok"`
}

// fact adds a judged fact.
func (o *Outcome) fact(ok bool, format string, args ...any) {
	o.Facts = append(o.Facts, Fact{Text: fmt.Sprintf(format, args...), OK: ok})
	o.OK = o.OK && ok
}

// fail adds an error as a fact, and says whether there was one.
func (o *Outcome) fail(err error) bool {
	if err != nil {
		o.fact(false, "%v", err)
	}
	return err != nil
}

// steps are run in this order.
var steps = []func(context.Context, *scene) Outcome{injected, passedThrough, denied, spoofed, quic, leaked}

func injected(ctx context.Context, s *scene) Outcome {
	o := Outcome{Title: "injected", Tried: "GET https://api.example.org/repos/one with the dummy token", OK: true}
	seen, err := s.client(ctx, "-header", "Authorization: Bearer "+s.dummy, "https://api.example.org/repos/one")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Status == 200, "the bottle got %s", answer(seen))
	requests := s.api.Requests()
	sent := ""
	if len(requests) == 1 {
		sent = requests[0].Header.Get("Authorization")
	}
	o.fact(sent == "Bearer "+realToken, "the server saw %q, the host's own token", sent)
	o.fact(!strings.Contains(seen.Body, realToken) && strings.Contains(seen.Body, "/repos/one"),
		"the server echoed it, and the bottle read it masked; all it holds is %q", s.dummy)
	if got, ok := s.curl(ctx, "-H", "Authorization: Bearer "+s.dummy, "https://api.example.org/repos/two"); ok {
		o.fact(got == "200", "curl, with nothing set but the bottle's environment: %s", got)
	}
	return o
}

func passedThrough(ctx context.Context, s *scene) Outcome {
	o := Outcome{Title: "passed through", Tried: "GET https://packages.example.org/", OK: true}
	seen, err := s.client(ctx, "-ca", s.ca, "https://packages.example.org/")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Status == 200, "the bottle got %s", answer(seen))
	o.fact(seen.Certificate == s.certificateOf("packages.example.org"),
		"the certificate was the server's own, signed by %q: nobody decrypted", seen.Issuer)
	return o
}

func denied(ctx context.Context, s *scene) Outcome {
	o := Outcome{Title: "denied", Tried: "GET https://evil.example.org/", OK: true}
	seen, err := s.client(ctx, "https://evil.example.org/")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Status == 403, "the bottle got %s: %s", answer(seen), oneLine(explanation(seen)))
	o.fact(strings.Contains(seen.Body, "host: evil.example.org"), "the answer holds the lines of the manifest that would allow it")
	o.fact(!s.world.Internet.Names.Asked("evil.example.org"), "the name was not asked for on the internet")
	packets, err := s.packetsTo(ctx, s.evil.Addr)
	if !o.fail(err) {
		o.fact(packets == 0, "packets that reached the server: %d", packets)
	}
	if got, ok := s.curl(ctx, "https://evil.example.org/"); ok {
		o.fact(got == "403", "curl: %s", got)
	}
	return o
}

func spoofed(ctx context.Context, s *scene) Outcome {
	o := Outcome{Title: "spoofed name", Tried: "a connection to evil.example.org's address that says packages.example.org", OK: true}
	seen, err := s.client(ctx, "-ca", s.ca, "-connect", httpsAt(s.evil.Addr), "https://packages.example.org/")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Certificate == s.certificateOf("packages.example.org") && s.packages.Connections() >= 2,
		"it ended at packages.example.org itself (%s): the gateway dials by name", answer(seen))
	before := len(s.api.Requests())
	seen, err = s.client(ctx, "-host", "evil.example.org", "https://api.example.org/repos/one")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Status == 421 && len(s.api.Requests()) == before,
		"TLS for api.example.org with \"Host: evil.example.org\" inside: %s, no token went anywhere", answer(seen))
	packets, err := s.packetsTo(ctx, s.evil.Addr)
	if !o.fail(err) {
		o.fact(packets == 0, "packets that reached evil.example.org: %d", packets)
	}
	return o
}

// promptly is how soon a QUIC client must hear that it is refused.
const promptly = 1000 // milliseconds

func quic(ctx context.Context, s *scene) Outcome {
	o := Outcome{Title: "QUIC", Tried: "a QUIC Initial to packages.example.org:443", OK: true}
	before, err := s.packetsTo(ctx, s.packages.Addr)
	if o.fail(err) {
		return o
	}
	seen, err := s.client(ctx, "-udp", "packages.example.org:443")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Refused && seen.Milliseconds < promptly,
		"%s after %d ms: a client falls back to TCP at once", refusal(seen), seen.Milliseconds)
	after, err := s.packetsTo(ctx, s.packages.Addr)
	if !o.fail(err) {
		o.fact(after == before, "packets that reached the server: %d", after-before)
	}
	return o
}

func leaked(ctx context.Context, s *scene) Outcome {
	o := Outcome{Title: "leak", Tried: "GET https://files.example.org/ with api.example.org's dummy in a header", OK: true}
	seen, err := s.client(ctx, "https://files.example.org/")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Status == 200, "without it: %s", answer(seen))
	seen, err = s.client(ctx, "-header", "X-Note: "+s.dummy, "https://files.example.org/")
	if o.fail(err) {
		return o
	}
	o.fact(seen.Status == 403 && len(s.files.Requests()) == 1,
		"with it: %s: %s", answer(seen), oneLine(explanation(seen)))
	o.fact(!strings.Contains(seen.Body, s.dummy), "the refusal does not repeat the token")
	return o
}

func answer(s Seen) string {
	if s.Error != "" {
		return s.Error
	}
	return fmt.Sprintf("%s %d", s.Proto, s.Status)
}

// refusal says how a datagram fared.
func refusal(s Seen) string {
	switch {
	case s.Refused:
		return "refused by ICMP"
	case s.Error != "":
		return s.Error
	}
	return "answered"
}

// explanation is what a refusal says in words.
func explanation(s Seen) string {
	var problem struct{ Detail string }
	if err := json.Unmarshal([]byte(s.Body), &problem); err != nil || problem.Detail == "" {
		return s.Body
	}
	return problem.Detail
}

// oneLine shortens text to fit a line of the screen.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 160
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
