package plan

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// beyondSchema names the refusals of testdata that a JSON Schema cannot make:
// those about the text of the file, and those that need a parser or a look at
// another place of the manifest.
var beyondSchema = strings.Fields(`
	anchor comment-only control-byte cut-off directive document-end duplicate-key empty-file indent long-line merge-key nesting not-utf8
	syntax tab tag two-documents complex-key
	auth-on-tcp auth-on-wildcard default-tap-long guest-broadcast guest-ipv6 guest-loopback guest-no-prefix guest-no-room
	header host-crlf host-duplicate host-ip host-multiline host-name host-url host-wildcard interface-name lend-claude mac-multicast
	methods methods-on-passthrough methods-on-tcp netns-unclean owner passthrough-http paths query tcp-without-port
	template-none-forward user host-number`)

// TestSchemaFile: docs/manifest.schema.json is what the types say.
func TestSchemaFile(t *testing.T) {
	golden(t, "../docs/manifest.schema.json", string(Schema()))
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaID, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schemaID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// value reads a YAML file as a schema sees it.
func value(t *testing.T, file string) (any, error) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
}

// TestSchemaAgrees: the schema takes every valid manifest, and refuses every
// invalid one but those that it cannot know.
func TestSchemaAgrees(t *testing.T) {
	s := compiledSchema(t)
	valid, err := filepath.Glob("../examples/*.bottle.yaml")
	if err != nil || len(valid) < 3 {
		t.Fatalf("examples: %v, %v", valid, err)
	}
	more, err := filepath.Glob("testdata/valid-*.yaml")
	if err != nil || len(more) == 0 {
		t.Fatalf("valid manifests: %v, %v", more, err)
	}
	for _, file := range append(valid, more...) {
		if _, err := LoadManifest(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if v, err := value(t, file); err != nil || s.Validate(v) != nil {
			t.Errorf("%s: %v, %v", file, err, s.Validate(v))
		}
	}
	beyond := map[string]bool{}
	for _, name := range beyondSchema {
		beyond[name] = true
	}
	invalid, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(invalid) == 0 {
		t.Fatalf("invalid manifests: %v, %v", invalid, err)
	}
	for _, file := range invalid {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "invalid-"), ".yaml")
		if beyond[name] {
			delete(beyond, name)
			continue
		}
		if v, err := value(t, file); err == nil && s.Validate(v) == nil {
			t.Errorf("%s: the schema takes it", file)
		}
	}
	for name := range beyond {
		t.Errorf("there is no testdata/invalid-%s.yaml", name)
	}
}

// TestManual: docs/MANIFEST.md has every key that a manifest may hold.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../docs/MANIFEST.md")
	if err != nil {
		t.Fatal(err)
	}
	known := []reflect.Type{
		reflect.TypeFor[Manifest](), reflect.TypeFor[LinkManifest](), reflect.TypeFor[AgentProvider](), reflect.TypeFor[Egress](),
		reflect.TypeFor[RouteManifest](), reflect.TypeFor[PipelockManifest](), reflect.TypeFor[AuthManifest](),
		reflect.TypeFor[SecretManifest](), reflect.TypeFor[JSONManifest](), reflect.TypeFor[DNSManifest](),
	}
	for _, typ := range known {
		for _, key := range keysOf(typ) {
			if !regexp.MustCompile("[`.]" + key + "[`.\\[]").Match(manual) {
				t.Errorf("%s.%s is not in docs/MANIFEST.md", typ.Name(), key)
			}
		}
	}
	for _, name := range templates() {
		if !bytes.Contains(manual, []byte("`"+name+"`")) {
			t.Errorf("provider %s is not in docs/MANIFEST.md", name)
		}
	}
}
