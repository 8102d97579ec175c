package gateway

import (
	"encoding/base32"
	"slices"
	"strings"

	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

// nameCanaries returns the forms that a token takes in a host name, besides those that the scanner knows by itself:
// names have no upper case, and what is to be carried in one is most often put into base32 (RFC 4648 section 6).
func nameCanaries(tokens []pipelock.Token) []pipelock.Token {
	out := append([]pipelock.Token(nil), tokens...)
	for _, t := range tokens {
		for _, value := range []string{
			strings.ToLower(t.Value),
			strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(t.Value))),
			strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(t.Value))),
		} {
			if value != t.Value {
				out = append(out, pipelock.Token{Name: t.Name, Value: value, Homes: t.Homes})
			}
		}
	}
	return out
}

// nameScanner returns the scanner for host names under routes that turn off the rules in disable: one for all names of which
// that is so, since names are asked for often. The plan's hosts bound how many there are. A form that is doubtful elsewhere is a
// leak there: names have no capitals, and a checksum that had some is wrong. What is assigned to something called a key is not
// looked for: names assign nothing.
func (s *snapshot) nameScanner(disable []string) *pipelock.Scanner {
	key := strings.Join(disable, "\n")
	if made, ok := s.names.Load(key); ok {
		return made.(*pipelock.Scanner)
	}
	off := slices.DeleteFunc(s.formats.IDs(), func(id string) bool { return !s.formats.Advisory(id) })
	policy := s.formats.Policy(append(off, disable...), false)
	made, _ := s.names.LoadOrStore(key, pipelock.Live(s.known.inNames).WithFormats(s.formats, policy))
	return made.(*pipelock.Scanner)
}

// nameLeak looks for tokens in a name that only a wildcard allows, which is the one kind of name that a guest can make
// up. It returns what was found, in words fit for a record, or "".
func (s *snapshot) nameLeak(name string) string {
	scanner := s.nameScanner(s.table.Disabled(name))
	// A token longer than a label has dots in it.
	for _, text := range []string{name, strings.ReplaceAll(name, ".", "")} {
		if found := scanner.Scan(name, "name", []byte(text)); len(found) > 0 {
			return describe(&found[0])
		}
	}
	return ""
}

// leakyName refuses the flow if its name carries a token to whoever answers for the wildcard, and reports whether it did.
func (f *flow) leakyName(v routes.Verdict) bool {
	if v.Route == nil || !strings.HasPrefix(v.Route.Host, "*.") {
		return false
	}
	found := f.snap.nameLeak(f.host)
	if found == "" {
		return false
	}
	f.note(func(r *Record) { r.Finding, r.Rule, r.Host = found, v.Rule, "" })
	f.host = "" // the record must not carry the token on
	f.refuse(ReasonLeak, nil)
	return true
}
