// Package config turns one YAML file into one immutable, validated [Config].
// It is the only package that knows YAML.
//
// [Parse] walks the YAML strictly: every mistake of a file is reported at once,
// each with its file, line, column and key path, the line itself with a caret
// under the spot, and the nearest key or name that exists. Whatever has no
// effect is refused: an unknown key, a key given twice, an alias, a second
// document. A Config that Parse returns has every default filled in and every
// cross-reference checked, so nobody downstream checks again.
//
// One table of keys (keys.go and its siblings) drives both the walker and the JSON
// Schema that [Schema] returns for editors; they cannot disagree.
//
// The package never opens a file, reads the environment or the clock, starts a
// goroutine or keeps state: bytes come in through [Sources]. It does not parse
// RFC 1035 master files or geo databases; it hands their text and their names on.
// Secrets come from files or from the environment, never from the YAML itself,
// and a [Secret] never prints its value.
//
// The verbs validate, run, reload and explain call it; internal/steer compiles
// what it returns, and internal/node translates it into each tier's options.
//
//	cfg, err := config.Load("/etc/pharos/pharos.yaml", config.Sources{
//		ReadFile: os.ReadFile,
//		Getenv:   os.LookupEnv,
//	})
//	if errs, ok := errors.AsType[config.Errors](err); ok {
//		fmt.Fprint(os.Stderr, errs.Pretty())
//	}
package config
