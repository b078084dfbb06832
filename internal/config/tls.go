package config

const (
	defaultTLSVersion = "1.2"
	defaultClientOCSP = "off"
	tlsRequire        = "require"

	maxCertificates = 10_000 // a listener
	maxRevocations  = 64     // lists of a listener
	minTicketSecret = 16     // characters
)

// TLSListener terminates TLS. Its certificate files have been joined to the folder of
// the configuration, and not been read: they are there on the nodes only.
type TLSListener struct {
	Certificates []Certificate // never empty; the first is the default
	MinVersion   string        // "1.2" or "1.3"
	Client       *TLSClient    // nil = clients are not asked for certificates
	Staple       bool          // fetch OCSP responses; default true
	TicketKey    Secret        // none = made of the gossip key
}

// A Certificate is the files of one certificate.
type Certificate struct{ Certificate, Key, OCSP string }

// A TLSClient says which client certificates are taken.
type TLSClient struct {
	CA       string
	CRL      []string
	Optional bool
	OCSP     string // "off", "try" or "require"
}

func tlsKeys() *shape {
	certificate := object(
		need("certificate", one(fileName("a file", maxPath)), "A PEM file with the certificate first and its chain behind it"),
		need("key", one(fileName("a file", maxPath)), "A PEM file with the private key; it may be the same file"),
		may("ocsp", one(fileName("a file", maxPath)), "A file with a DER response to staple. Default: fetched from the issuer's responder"),
	)
	client := object(
		need("ca", one(fileName("a file", maxPath)), "A PEM file with the authorities whose certificates are taken"),
		with("verify", one(enum("a rule", tlsRequire, "optional")), tlsRequire, "Whether clients need a certificate"),
		may("crl", oneOrMore(one(fileName("a file", maxPath)), 1, maxRevocations), "Files with revocation lists of these authorities, PEM or DER"),
		with("ocsp", one(enum("a rule", defaultClientOCSP, "try", tlsRequire)), defaultClientOCSP,
			"Ask the issuers' responders: try lets in whom none is heard about, require does not"),
	)
	return object(
		need("certificates", oneOrMore(certificate, 1, maxCertificates),
			"By server name: exact, then wildcard; the first is for clients that name no server or another"),
		with("min_version", one(enum("a TLS version", defaultTLSVersion, "1.3")), defaultTLSVersion, "The oldest version that is spoken"),
		may("client", client, "Ask clients for a certificate"),
		with("staple", one(boolean()), true, "Fetch OCSP responses and staple them"),
		may("ticket_key_file", one(fileName("a file", maxPath)),
			"A file with the secret of session tickets, the same on every node. Default: made of the gossip key"),
	)
}

func (b *builder) buildTLS(at *value) *TLSListener {
	t := &TLSListener{MinVersion: get[string](at, "min_version"), Staple: get[bool](at, "staple")}
	for _, item := range at.list("certificates") {
		t.Certificates = append(t.Certificates, Certificate{
			Certificate: b.fileOf(item, "certificate"), Key: b.fileOf(item, "key"), OCSP: b.fileOf(item, "ocsp"),
		})
	}
	if client := at.entry("client"); client != nil {
		t.Client = &TLSClient{
			CA: b.fileOf(client, "ca"), OCSP: get[string](client, "ocsp"), Optional: get[string](client, "verify") != tlsRequire,
		}
		for _, name := range each[string](client.list("crl")) {
			t.Client.CRL = append(t.Client.CRL, b.resolve(name))
		}
	}
	ticket, from := b.readSecretOf(at, "ticket_key")
	if ticket != "" && len(ticket) < minTicketSecret {
		b.refuse(from, refuse("the secret has fewer than %d characters: make one with `head -c 24 /dev/urandom | base64`", minTicketSecret))
	}
	t.TicketKey = NewSecret(ticket)
	return t
}
