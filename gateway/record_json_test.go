package gateway

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// TestRecordJSON holds the encoder against encoding/json: for the empty record, and with each field set alone and all of them
// together, so that a field that is new cannot be forgotten.
func TestRecordJSON(t *testing.T) {
	check := func(r Record) {
		t.Helper()
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.appendJSON(nil)); got != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	var all Record
	check(all)
	for i := range reflect.TypeFor[Record]().NumField() {
		for _, text := range []string{"plain", "a \"b\"\n<c> & \\d\x00ä\u2028\xff\x7f"} {
			var one Record
			for _, r := range []*Record{&one, &all} {
				switch f := reflect.ValueOf(r).Elem().Field(i); f.Interface().(type) {
				case time.Time:
					f.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)))
				case netip.AddrPort:
					f.Set(reflect.ValueOf(netip.MustParseAddrPort("[2001:db8::1%eth0]:443")))
				case routes.Decision:
					f.Set(reflect.ValueOf(routes.Intercept))
				default:
					switch f.Kind() {
					case reflect.String:
						f.SetString(text)
					case reflect.Bool:
						f.SetBool(true)
					case reflect.Uint16, reflect.Uint64:
						f.SetUint(65535)
					default:
						f.SetInt(-7)
					}
				}
			}
			check(one)
		}
	}
	check(all)
}
