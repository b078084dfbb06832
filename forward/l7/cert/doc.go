// Package cert gives a TLS listener its certificates, and checks those of its
// clients.
//
// A Store holds pairs of files. It finds the pair for a server name (exact, then
// *.wildcard, then the first), among several for one name the first that the client
// can use. Tend looks at the files: a pair that changed is swapped in as a whole, one
// that has become unreadable, or whose key does not fit, is refused and the old one
// goes on. A certificate that has expired is served like any other, since a client
// that cares says so itself; State tells until when each is valid.
//
// A Stapler fetches OCSP responses from the issuers' responders and keeps them by
// certificate, over reloads too. Only a response that is signed by the issuer, in
// force and "good" is stapled.
//
// A Clients checks client certificates against a CA file, revocation lists and the
// issuers' responders.
//
// Keys derives session ticket keys from a secret and the time, so that every node
// that has the secret takes the tickets of the others without a message.
//
// It starts no goroutine and opens no socket but to OCSP responders. Certificates
// that come from elsewhere, an ACME client for one, implement Source. Caller: package
// l7.
//
//	store, err := cert.Open([]cert.File{{Certificate: "www.pem", Key: "www.key"}}, nil)
//	config := &tls.Config{GetCertificate: store.GetCertificate}
package cert
