package config

// A shape describes one YAML value: the single source of the walker, of the
// defaults and of the JSON Schema. Exactly one of its groups is used, except
// that a mapping may also have a scalar as its short form (`check: tcp`).
type shape struct {
	// scalar is a single value; nil for pure mappings and lists.
	scalar *scalar

	// A mapping: fields are its fixed keys, rest is the shape under keys that the
	// operator chooses, which are read by key.
	mapping bool
	fields  []field
	choices []choice
	key     *scalar
	rest    *shape

	// A list of items; bare allows an item where a list of one is meant.
	item *shape
	bare bool

	// least and most bound the number of list items or of chosen keys; most 0 is
	// no bound beyond the fixed keys.
	least, most int

	// name is set for a shape that contains itself: the schema defines it once under
	// that name. nest is how many values of such shapes may be inside each other.
	name string
	nest int
}

// A field is one fixed key of a mapping.
type field struct {
	key      string
	doc      string
	shape    *shape
	required bool
	// def is the default that the builder uses and the schema shows: a
	// time.Duration, int, float64, bool, string or []string. nil is none, or one
	// that depends on other keys, which doc then tells.
	def any
}

// A choice is a set of keys of which at most one, or with must exactly one, is
// given.
type choice struct {
	keys []string
	must bool
}

// The forms of a reference: what a scalar must name.
type reference uint8

const (
	refNone reference = iota
	refSite
	refService
	refNetwork // "network:NAME"; other texts are no references
)

// A scalar describes single values: how their text is read and what the schema
// says of it.
type scalar struct {
	noun    string // "a duration", for messages
	kind    scalarKind
	read    func(text string) (any, *problem)
	pattern string   // of the text, anchored; "" = any
	enum    []string // the only texts
	least   float64  // of numbers, for the schema
	most    float64
	example string
	ref     reference
	secret  bool // only ${ENV}; never shown
}

// scalarKind is the JSON type of a scalar.
type scalarKind uint8

const (
	kindString scalarKind = iota
	kindInteger
	kindNumber
	kindBoolean
	kindAny // any scalar, taken as text
)

func one(s *scalar) *shape { return &shape{scalar: s} }

// object is a mapping with fixed keys.
func object(fields ...field) *shape { return &shape{mapping: true, fields: fields} }

// pick adds a choice of which exactly one key is given.
func (s *shape) pick(keys ...string) *shape {
	s.choices = append(s.choices, choice{keys: keys, must: true})
	return s
}

// atMostOne adds a choice of which none is needed.
func (s *shape) atMostOne(keys ...string) *shape {
	s.choices = append(s.choices, choice{keys: keys})
	return s
}

// orShort lets a scalar stand for the mapping.
func (s *shape) orShort(short *scalar) *shape {
	s.scalar = short
	return s
}

// dict is a mapping with the operator's keys.
func dict(key *scalar, rest *shape, least, most int) *shape {
	return &shape{mapping: true, key: key, rest: rest, least: least, most: most}
}

// list is a sequence of items.
func list(item *shape, least, most int) *shape {
	return &shape{item: item, least: least, most: most}
}

// oneOrMore is a list that may be written as its only item.
func oneOrMore(item *shape, least, most int) *shape {
	return &shape{item: item, bare: true, least: least, most: most}
}

func need(key string, s *shape, doc string) field {
	return field{key: key, shape: s, doc: doc, required: true}
}

func may(key string, s *shape, doc string) field {
	return field{key: key, shape: s, doc: doc}
}

func with(key string, s *shape, def any, doc string) field {
	return field{key: key, shape: s, doc: doc, def: def}
}

// field returns the fixed key, nil if there is none.
func (s *shape) field(key string) *field {
	for i := range s.fields {
		if s.fields[i].key == key {
			return &s.fields[i]
		}
	}
	return nil
}

// keys yields the fixed keys.
func (s *shape) keys(yield func(string) bool) {
	for i := range s.fields {
		if !yield(s.fields[i].key) {
			return
		}
	}
}

// named yields the shapes below s that contain themselves, each once.
func (s *shape) named(yield func(*shape) bool) {
	seen := make(map[*shape]bool)
	var walk func(*shape) bool
	walk = func(s *shape) bool {
		if s == nil || seen[s] {
			return true
		}
		if s.name != "" {
			seen[s] = true
			if !yield(s) {
				return false
			}
		}
		for i := range s.fields {
			if !walk(s.fields[i].shape) {
				return false
			}
		}
		return walk(s.rest) && walk(s.item)
	}
	walk(s)
}
