package needle

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"strings"
)

// Forms returns the byte strings that a value may appear as, each once, the
// value itself first:
//
//   - base64, standard and URL-safe (RFC 4648 sections 4 and 5), at each of the
//     three offsets that a value inside a longer text can have. Of those only
//     the characters that the value alone decides are looked for, so that up
//     to four bits at either edge stay out of a match;
//   - hexadecimal, in lower and upper case;
//   - percent-encoded where URLs need it and throughout, with lower-case and
//     upper-case digits, the standard base64 forms likewise;
//   - escaped in a JSON string where JSON needs it, with "\/", and as \u00XX
//     throughout in lower and upper case;
//   - escaped for HTML.
//
// A form shorter than MinLength is left out, and so is everything when the
// value itself is shorter. Mixtures of forms, other encodings, line-wrapped
// base64 and compression are not covered.
func Forms(value string) []string {
	if len(value) < MinLength {
		return nil
	}
	forms := []string{value}
	add := func(s string) {
		if len(s) < MinLength {
			return
		}
		for _, have := range forms {
			if have == s {
				return
			}
		}
		forms = append(forms, s)
	}
	for offset := range 3 {
		standard := base64Core(base64.RawStdEncoding, value, offset)
		add(standard)
		add(base64Core(base64.RawURLEncoding, value, offset))
		add(url.QueryEscape(standard))
		add(lowerEscapes(url.QueryEscape(standard)))
		add(strings.ReplaceAll(standard, "/", `\/`))
	}
	digits := hex.EncodeToString([]byte(value))
	add(digits)
	add(strings.ToUpper(digits))
	for _, escaped := range []string{url.QueryEscape(value), url.PathEscape(value), eachByte(value, "%", "0123456789ABCDEF")} {
		add(escaped)
		add(lowerEscapes(escaped))
	}
	for _, escapeHTML := range []bool{false, true} {
		escaped := jsonEscape(value, escapeHTML)
		add(escaped)
		add(strings.ReplaceAll(escaped, "/", `\/`))
	}
	add(eachByte(value, `\u00`, "0123456789abcdef"))
	add(eachByte(value, `\u00`, "0123456789ABCDEF"))
	add(html.EscapeString(value))
	return forms
}

// base64Core returns the characters of the encoding that value alone decides
// when offset bytes (0 to 2) come before it in its group of three.
func base64Core(enc *base64.Encoding, value string, offset int) string {
	whole := enc.EncodeToString([]byte("\x00\x00"[:offset] + value))
	first := (8*offset + 5) / 6
	last := 8 * (offset + len(value)) / 6
	return whole[first:last]
}

// eachByte returns every byte as prefix and two digits.
func eachByte(value, prefix, digits string) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		b.WriteString(prefix)
		b.WriteByte(digits[value[i]>>4])
		b.WriteByte(digits[value[i]&15])
	}
	return b.String()
}

// lowerEscapes gives percent-encodings lower-case digits.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], strings.ToLower(string(b[i+1:i+3])))
			i += 2
		}
	}
	return string(b)
}

// jsonEscape returns value as the inside of a JSON string, with the
// characters that are special in HTML escaped or not.
func jsonEscape(value string, escapeHTML bool) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(value); err != nil { // strings always encode
		return value
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
}
