package config

import "errors"

// SKETCH of the package's API: replaced by the real files.

// Sources are where Parse gets bytes from, so that it does no I/O of its own.
type Sources struct {
	ReadFile func(name string) ([]byte, error) // os.ReadFile; relative names are resolved against the config's folder
	Getenv   func(name string) (string, bool)  // os.LookupEnv
}

// Load reads and validates the file.
func Load(file string, src Sources) (*Config, error) { return nil, errors.New("sketch") }

// Errors is every error of one file, in file order.
type Errors []*Error

// Error is one mistake in a file, with its place.
type Error struct {
	File         string
	Line, Column int
	Path         string // "services.web.check.every"
	Message      string // what is wrong, and what to do
	Hint         string // `did you mean "ttl"?`
	Source       string // the line of the file, for the caret
}

// Error returns "pharos.yaml:14:5: services.web.tll: unknown key (did you mean "ttl"?)".
func (e *Error) Error() string { return e.Message }

// Reveal returns the secret value.
func (s Secret) Reveal() string { return s.value }

// String returns "(set)" or "(none)".
func (s Secret) String() string { return "(set)" }

// Schema returns the JSON Schema of the file.
func Schema() ([]byte, error) { return nil, errors.New("sketch") }
