// Package proxyproto reads and writes the header with which one proxy tells the
// next who the client is: the PROXY protocol, versions 1 and 2.
//
// It takes bytes and gives bytes. It reads strictly: what the specification does
// not allow is an error, never a guess, since whoever can choose the header can
// choose the address that access is granted by. It never decides whom to trust
// with one.
//
// Callers peek at a connection's first bytes and ask again when more have come:
//
//	header, n, err := proxyproto.Parse(first)
//	switch {
//	case errors.Is(err, proxyproto.ErrIncomplete): // wait for more
//	case err != nil:                               // not a header, or a bad one
//	default:                                       // n bytes are the header
//	}
//
// Specification: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
package proxyproto
