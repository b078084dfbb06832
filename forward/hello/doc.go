// Package hello reads the name and the protocols that a TLS client asks for out
// of its first bytes, so that a connection can be given to somebody who speaks
// TLS with it. It never answers, decrypts or changes anything.
//
// A hello may come in any number of segments and be spread over any number of
// records (RFC 8446, section 5.1). Callers peek and ask again when more has come:
//
//	h, err := hello.Parse(first)
//	switch {
//	case errors.Is(err, hello.ErrIncomplete): // wait for more
//	case errors.Is(err, hello.ErrNotTLS):     // something else than TLS
//	case err != nil:                          // a hello that breaks the rules
//	}
package hello
