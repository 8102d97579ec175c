package plan

import (
	"encoding/json"

	"github.com/invopop/jsonschema"
)

// schemaID is the schema's own name: a URN, so that nobody is sent to fetch it.
const schemaID = "urn:gatewayd:manifest"

// Schema returns the JSON Schema (draft 2020-12) of the manifest, indented and
// ending in a newline, generated from the Go types. It says what a schema can
// say; ParseManifest refuses more.
func Schema() []byte {
	r := &jsonschema.Reflector{RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Anonymous: true}
	s := r.Reflect(&Manifest{})
	s.ID = schemaID
	s.Title = "A bottle of gatewayd: what it is and what may leave it"
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		// The schema is made of maps, slices and strings; see the tests.
		panic("marshal schema: " + err.Error())
	}
	return append(data, '\n')
}

// JSONSchema describes the three values of forward_host_credentials.
func (Forward) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Enum: []any{true, false, "lend"}}
}

// JSONSchemaExtend names the known templates.
func (AgentProvider) JSONSchemaExtend(s *jsonschema.Schema) {
	if p, ok := s.Properties.Get("template"); ok {
		for _, name := range templates() {
			p.Enum = append(p.Enum, name)
		}
	}
}

// JSONSchemaExtend allows an empty egress section's routes to be null: both
// mean that nothing may leave.
func (Manifest) JSONSchemaExtend(s *jsonschema.Schema) {
	if p, ok := s.Properties.Get("egress"); ok {
		s.Properties.Set("egress", nullable(p))
	}
}

// JSONSchemaExtend allows routes to be null: nothing may leave.
func (Egress) JSONSchemaExtend(s *jsonschema.Schema) {
	if p, ok := s.Properties.Get("routes"); ok {
		s.Properties.Set("routes", nullable(p))
	}
}

func nullable(s *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{s, {Type: "null"}}, Description: s.Description}
}

// JSONSchemaExtend allows at most one kind of link, and with it what it has.
func (LinkManifest) JSONSchemaExtend(s *jsonschema.Schema) {
	isTrue := jsonschema.NewProperties()
	isTrue.Set("adopt", &jsonschema.Schema{Const: true})
	adopted := &jsonschema.Schema{Properties: isTrue, Required: []string{"adopt"}}
	s.DependentRequired = map[string][]string{"adopt": {"netns"}}
	s.AllOf = []*jsonschema.Schema{
		notBoth("tap", "netns"), notBoth("tap", "interface"), notBoth("netns", "interface"),
		notBoth("owner", "netns"), notBoth("owner", "interface"),
		notBoth("multi_queue", "netns"), notBoth("multi_queue", "interface"),
		{If: adopted, Then: &jsonschema.Schema{AllOf: []*jsonschema.Schema{notHas("guest"), notHas("mac"), notHas("mtu")}}},
	}
}

func notBoth(a, b string) *jsonschema.Schema {
	return &jsonschema.Schema{Not: &jsonschema.Schema{Required: []string{a, b}}}
}

func notHas(key string) *jsonschema.Schema {
	return &jsonschema.Schema{Not: &jsonschema.Schema{Required: []string{key}}}
}

// JSONSchemaExtend requires exactly one source.
func (SecretManifest) JSONSchemaExtend(s *jsonschema.Schema) {
	for _, key := range []string{"env", "file", "json", "command"} {
		s.OneOf = append(s.OneOf, &jsonschema.Schema{Required: []string{key}})
	}
}
