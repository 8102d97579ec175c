package needle

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
)

// form is a byte string that a value may appear as. loose is empty, or has 0x20
// for each of its letters that may be in either case, which are small ones in
// text, and 0 for all else.
type form struct{ text, loose string }

// Forms returns the byte strings that a value may appear as, each once, the
// value itself first:
//
//   - base64, standard and URL-safe (RFC 4648 sections 4 and 5), at each of the
//     three offsets that a value inside a longer text can have. Of those only
//     the characters that the value alone decides are looked for, so that up
//     to four bits at either edge stay out of a match;
//   - hexadecimal;
//   - percent-encoded where URLs need it and throughout, the standard base64
//     forms likewise;
//   - escaped in a JSON string where JSON needs it, with "\/", and as \u00XX
//     throughout;
//   - escaped for HTML.
//
// Of those with hexadecimal digits it returns two, in lower and in upper case;
// a [Set] looks for any mixture of the two. A form shorter than MinLength is
// left out, and so is everything when the value itself is shorter. Mixtures of
// forms, other encodings, line-wrapped base64 and compression are not covered.
func Forms(value string) []string {
	var all []string
	for _, f := range formsOf(value) {
		all = append(all, f.text)
		if f.loose != "" {
			all = append(all, f.upper())
		}
	}
	return all
}

// upper returns the form with its loose letters in upper case.
func (f form) upper() string {
	b := []byte(f.text)
	for i := range b {
		b[i] &^= f.loose[i]
	}
	return string(b)
}

func formsOf(value string) []form {
	if len(value) < MinLength {
		return nil
	}
	forms := []form{{text: value}}
	addForm := func(f form) {
		if len(f.text) >= MinLength && !slices.Contains(forms, f) {
			forms = append(forms, f)
		}
	}
	add := func(s string) { addForm(form{text: s}) }
	addEscaped := func(s string) { addForm(looseDigits(s, '%', 2)) }
	for offset := range 3 {
		standard := base64Core(base64.RawStdEncoding, value, offset)
		add(standard)
		add(base64Core(base64.RawURLEncoding, value, offset))
		addEscaped(url.QueryEscape(standard))
		add(strings.ReplaceAll(standard, "/", `\/`))
	}
	addForm(loose(hex.EncodeToString([]byte(value)), func(int) bool { return true }))
	for _, escaped := range []string{url.QueryEscape(value), url.PathEscape(value), eachByte(value, "%")} {
		addEscaped(escaped)
	}
	for _, escapeHTML := range []bool{false, true} {
		escaped := jsonEscape(value, escapeHTML)
		add(escaped)
		add(strings.ReplaceAll(escaped, "/", `\/`))
	}
	addForm(looseDigits(eachByte(value, `\u00`), 'u', 4))
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
func eachByte(value, prefix string) string {
	var b strings.Builder
	for i := range len(value) {
		fmt.Fprintf(&b, "%s%02x", prefix, value[i])
	}
	return b.String()
}

// looseDigits returns s as a form in which the n hexadecimal digits behind each mark may be in either case.
func looseDigits(s string, mark byte, n int) form {
	end := 0
	return loose(s, func(i int) bool {
		if i >= end && s[i] == mark {
			end = i + 1 + n
			return false
		}
		return i < end
	})
}

// loose returns s as a form in which the letters that free says may be in either case. It is asked once for each byte, in
// order.
func loose(s string, free func(i int) bool) form {
	text, mask := []byte(s), make([]byte, len(s))
	any := false
	for i, c := range text {
		if small := c | 0x20; free(i) && 'a' <= small && small <= 'f' {
			text[i], mask[i], any = small, 0x20, true
		}
	}
	if !any {
		return form{text: s}
	}
	return form{string(text), string(mask)}
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
