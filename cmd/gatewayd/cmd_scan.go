package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway/formats"
	"gatewayd/gateway/pipelock"
)

// scanCommand runs the leak scanner by hand.
func (a *app) scanCommand() *cobra.Command {
	rules := false
	var contentType, encoding string
	c := &cobra.Command{
		Use:   "scan FILE|- | scan --rules",
		Short: "look for tokens in a file as the gateway does in requests",
		Long: `Scan reads a file, or the standard input for '-', as the body of a request, and explains each token that
it finds by its form: which rule knows it and why, what becomes of a request that holds it, at which byte
it is and whether in base64 or hexadecimal, with an excerpt that does not show it, and what lets it go.
--content-type and --content-encoding are the fields that such a body came with: a form's fields, the parts
of multipart and gRPC messages are looked at decoded then, and offsets count decoded bytes. The rules are the
built-in ones and those of pipelock.rules. With --rules it lists their ids, which a route's pipelock.disable
takes. No daemon is asked, and known secrets and dummies of bottles are not looked for. The exit code is 5 if
a request with this body is refused, for a token or since it cannot be decoded; 0 if it goes, with notes or
without.`,
		Args: func(_ *cobra.Command, args []string) error {
			if want := 1; rules && len(args) == 0 || !rules && len(args) == want {
				return nil
			}
			return usagef("scan takes a file, or '-', or --rules alone")
		},
	}
	c.Flags().BoolVar(&rules, "rules", false, "list the rules")
	c.Flags().StringVar(&contentType, "content-type", "", "the Content-Type of the body")
	c.Flags().StringVar(&encoding, "content-encoding", "", "the Content-Encoding of the body, or of the messages of gRPC or Connect")
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := a.config()
		if err != nil {
			return err
		}
		set, err := provision.Formats(cfg)
		if err != nil {
			return &exitError{code: exitRefused, err: err}
		}
		if rules {
			return a.listRules(set, *form)
		}
		return a.scanFile(args[0], c.InOrStdin(), bodyHeader(contentType, encoding), set, *form)
	}
	return c
}

// bodyHeader returns the header of a request with such a body.
func bodyHeader(contentType, encoding string) http.Header {
	h := http.Header{}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	media := strings.ToLower(contentType)
	switch {
	case encoding == "":
	case strings.HasPrefix(media, "application/grpc"):
		h.Set("Grpc-Encoding", encoding)
	case strings.HasPrefix(media, "application/connect+"):
		h.Set("Connect-Content-Encoding", encoding)
	default:
		h.Set("Content-Encoding", encoding)
	}
	return h
}

// listRules prints the ids and what their findings lead to.
func (a *app) listRules(set *formats.Set, form format) error {
	t := table{head: []string{"RULE", "ACTION"}}
	type row struct {
		Rule   string          `json:"rule"`
		Action pipelock.Action `json:"action"`
	}
	var all []row
	for _, id := range set.IDs() {
		r := row{Rule: id}
		if set.Advisory(id) {
			r.Action = pipelock.Warn
		}
		all = append(all, r)
		t.add(text(id), text(r.Action.String()))
	}
	if form == formatJSON {
		return a.printJSON(all)
	}
	return t.write(a.out, a.terminal)
}

// scanned is one finding of scan with what is known of its rule.
type scanned struct {
	pipelock.Inspected
	Description string `json:"description,omitempty"`
	Why         string `json:"why"`
	Silence     string `json:"silence"`
}

// explainFinding says why something was found, and what lets it go.
func explainFinding(f pipelock.Inspected, r formats.Rule) scanned {
	why := fmt.Sprintf("it has the rule's form, and %.1f bits of randomness in a byte", f.Entropy)
	if r.Entropy > 0 {
		why += fmt.Sprintf(", more than %g", r.Entropy)
	}
	switch {
	case f.Doubtful:
		why += "; but its checksum is wrong, so it is only noted"
	case r.Check != "":
		why += "; " + r.Check
	}
	if r.Advisory {
		why += "; the rule is for whatever is assigned to something called a key, so it is only noted"
	}
	return scanned{f, r.Description, why, "pipelock: {disable: [" + f.Rule + "]}"}
}

// scanFile scans one file.
func (a *app) scanFile(name string, stdin io.Reader, h http.Header, set *formats.Set, form format) error {
	in, place := stdin, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in, place = f, name
	}
	all := []scanned{}
	refused := false
	scanner := pipelock.New(nil).WithFormats(set, set.Policy(nil, false))
	broken := scanner.Inspect(place, h, in, func(f pipelock.Inspected) {
		all = append(all, explainFinding(f, set.Rule(f.Rule)))
		refused = refused || f.Action == pipelock.Block
	})
	var err error
	if form == formatJSON {
		err = a.printJSON(all)
	} else {
		err = a.showFindings(all)
	}
	switch {
	case err != nil:
		return err
	case is[*pipelock.EncodingError](broken):
		return &exitError{code: exitDenied, err: fmt.Errorf("a request with this body is refused as unscannable: %w", broken)}
	case broken != nil:
		return broken
	case refused:
		return &exitError{code: exitDenied}
	}
	return nil
}

// showFindings prints findings, each with the reason, and what lets them go.
func (a *app) showFindings(all []scanned) error {
	var rules []string
	for _, f := range all {
		action := yellow
		if f.Action == pipelock.Block {
			action = red
		}
		where := fmt.Sprintf("%s, byte %d", f.Place, f.Offset)
		if f.Encoding != "" {
			where += ", in " + f.Encoding
		}
		err := fields{
			{"rule", f.Rule, bold},
			{"action", f.Action.String(), action},
			{"where", where, plain},
			{"excerpt", f.Excerpt, plain},
			{"for", f.Description, plain},
			{"because", f.Why, plain},
		}.write(a, "")
		if _, ends := fmt.Fprintln(a.out); err != nil || ends != nil {
			return errors.Join(err, ends)
		}
		rules = append(rules, f.Rule)
	}
	if len(rules) == 0 {
		return nil
	}
	slices.Sort(rules)
	_, err := fmt.Fprintf(a.out, `These lines of a route's would let it go there:

  pipelock: {disable: [%s]}

pipelock: {action: warn} makes notes of all forms instead. A rule in pipelock.rules with the same id and an
allow-list lets single values go everywhere.
`, strings.Join(slices.Compact(rules), ", "))
	return err
}
