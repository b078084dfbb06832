package config

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

// schemaID names the schema; editors match it with a modeline, nothing fetches it.
const schemaID = "https://pharos-lb.github.io/pharos.schema.json"

// Schema returns the JSON Schema (draft 2020-12) of the file, for editors:
// indented, ending with a newline, the same bytes every time. It knows keys, types, ranges and
// defaults. References and other checks across values are Parse's.
func Schema() ([]byte, error) {
	top := schemaOf(fileKeys())
	top.Version = jsonschema.Version
	top.ID = schemaID
	top.Title = "pharos configuration"
	top.Definitions = jsonschema.Definitions{
		"env": {Type: "string", Pattern: envPattern, Description: "A value completed by ${NAME} from the environment"},
	}
	for s := range fileKeys().named {
		top.Definitions[s.name] = schemaOfForms(s)
	}
	text, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return append(text, '\n'), nil
}

func schemaOf(s *shape) *jsonschema.Schema {
	if s.name != "" {
		return &jsonschema.Schema{Ref: "#/$defs/" + s.name}
	}
	return schemaOfForms(s)
}

func schemaOfForms(s *shape) *jsonschema.Schema {
	var forms []*jsonschema.Schema
	if s.scalar != nil {
		forms = append(forms, schemasOf(s.scalar)...)
	}
	if s.mapping {
		forms = append(forms, schemaOfMapping(s))
	}
	if s.item != nil {
		item := schemaOf(s.item)
		if s.bare {
			forms = append(forms, item)
		}
		listed := &jsonschema.Schema{Type: "array", Items: item, MaxItems: bound(s.most)}
		if s.least > 0 {
			listed.MinItems = bound(s.least)
		}
		forms = append(forms, listed)
	}
	if len(forms) == 1 {
		return forms[0]
	}
	return &jsonschema.Schema{AnyOf: forms}
}

func schemaOfMapping(s *shape) *jsonschema.Schema {
	out := &jsonschema.Schema{
		Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema,
	}
	for _, f := range s.fields {
		field := schemaOf(f.shape)
		field.Description = f.doc
		field.Default = schemaDefault(f.def)
		out.Properties.Set(f.key, field)
		if f.required {
			out.Required = append(out.Required, f.key)
		}
	}
	if s.rest != nil {
		out.AdditionalProperties = schemaOf(s.rest)
		out.PropertyNames = schemaOfKeys(s)
		out.MaxProperties = bound(s.most + len(s.fields))
	}
	if s.least > 0 {
		out.MinProperties = bound(s.least)
	}
	for _, c := range s.choices {
		var each []*jsonschema.Schema
		for _, key := range c.keys {
			each = append(each, &jsonschema.Schema{Required: []string{key}})
		}
		if !c.must {
			each = append(each, &jsonschema.Schema{Not: &jsonschema.Schema{AnyOf: each[:len(each):len(each)]}})
		}
		out.AllOf = append(out.AllOf, &jsonschema.Schema{OneOf: each})
	}
	if len(out.AllOf) == 1 {
		out.OneOf, out.AllOf = out.AllOf[0].OneOf, nil
	}
	return out
}

// schemaOfKeys describes the operator's keys; the fixed ones beside them pass too.
func schemaOfKeys(s *shape) *jsonschema.Schema {
	names := &jsonschema.Schema{Pattern: s.key.pattern, Description: s.key.noun}
	var fixed []any
	for key := range s.keys {
		fixed = append(fixed, key)
	}
	if len(fixed) == 0 || s.key.pattern == "" {
		return names
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Enum: fixed}, names}}
}

// schemasOf returns the forms of a scalar: its own, and one that ${ENV} completes
// where its own would refuse that.
func schemasOf(s *scalar) []*jsonschema.Schema {
	env := &jsonschema.Schema{Ref: "#/$defs/env"}
	if s.secret {
		return []*jsonschema.Schema{env}
	}
	own := &jsonschema.Schema{Pattern: s.pattern}
	if s.example != "" {
		own.Examples = []any{s.example}
	}
	for _, word := range s.enum {
		own.Enum = append(own.Enum, word)
	}
	switch s.kind {
	case kindAny:
		own.Type = "string"
		numeric := &jsonschema.Schema{Type: "number"}
		if s.pattern != "" { // a status code, or a number of sites
			whole := &jsonschema.Schema{Type: "integer", Minimum: jsonNumber(s.least), Maximum: jsonNumber(s.most)}
			return []*jsonschema.Schema{own, whole, env}
		}
		return []*jsonschema.Schema{own, numeric, {Type: "boolean"}}
	case kindString:
		own.Type = "string"
		if s.pattern == "" && s.enum == nil {
			return []*jsonschema.Schema{own}
		}
	case kindBoolean:
		own.Type = "boolean"
	case kindInteger, kindNumber:
		own.Type = "number"
		if s.kind == kindInteger {
			own.Type = "integer"
		}
		own.Minimum, own.Maximum = jsonNumber(s.least), jsonNumber(s.most)
	}
	return []*jsonschema.Schema{own, env}
}

func jsonNumber(n float64) json.Number { return json.Number(strconv.FormatFloat(n, 'f', -1, 64)) }

// schemaDefault writes a default as it would be written in the file.
func schemaDefault(def any) any {
	switch d := def.(type) {
	case time.Duration:
		return plain(d)
	case []string:
		if len(d) == 1 && strings.HasPrefix(d[0], ":") {
			return d[0]
		}
		return d
	}
	return def
}

func bound(n int) *uint64 {
	u := uint64(n)
	return &u
}
