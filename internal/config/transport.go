package config

const (
	defaultProtocol = "http"
	maxWarm         = 256 // connections to a backend
)

// A Transport is what HTTP requests go to the backends of a service in. The zero Transport
// is plain HTTP/1.1. Its files have been joined to the folder of the configuration, and not been
// read: they are there on the nodes only.
type Transport struct {
	Protocol    string // "" (HTTP/1.1), "https", "h2" or "h2c"
	SNI         string // TLS server name; "" = the backend's address
	CA          string // "" = the system's authorities
	Certificate string // of ours; "" = none
	Key         string
	Insecure    bool   // the backend's certificate is not verified
	MinVersion  string // "1.2" or "1.3"; "" without TLS
	SendProxy   string // "", "v1" or "v2"
	Warm        int    // connections to each backend that are there before they are needed; 0 … 256
}

// protocolWords are what requests can go in, and secureWords those over TLS.
func protocolWords() []string { return []string{defaultProtocol, "https", "h2", "h2c"} }

func isSecure(protocol string) bool { return protocol == "https" || protocol == "h2" }

func transportKeys() *shape {
	return object(
		with("protocol", one(enum("a protocol", protocolWords()...)), defaultProtocol,
			"What http listeners speak to the backends: http or https (HTTP/1.1), h2 or h2c (HTTP/2, with and without TLS; needed for gRPC)"),
		may("tls", object(
			may("sni", one(checkHost()), "The server name that is asked for and verified. Default: the backend's address"),
			may("ca", one(fileName("a file", maxPath)), "A PEM file with the authorities that backends are verified by. Default: the system's"),
			may("certificate", one(fileName("a file", maxPath)), "A PEM file with the certificate that backends are shown, its chain behind it"),
			may("key", one(fileName("a file", maxPath)), "A PEM file with its private key. Default: the file of the certificate"),
			with("insecure", one(boolean()), false, "Do not verify the backend's certificate"),
			with("min_version", one(enum("a TLS version", defaultTLSVersion, "1.3")), defaultTLSVersion, "The oldest version that is spoken"),
		), "TLS to the backends; needs protocol https or h2"),
		may("send_proxy", one(enum("a version", "v1", "v2")),
			"Begin connections to backends with a PROXY header; each then carries the requests of one client connection"),
		with("warm", one(integer("warm", 0, maxWarm)), 0, "How many connections to each backend are there before they are needed"),
	).orShort(enum("a protocol", protocolWords()...))
}

// buildTransport reads how the backends of a service are spoken to.
func (b *builder) buildTransport(d *draft) {
	at := d.at.entry("transport")
	if at == nil {
		return
	}
	t := &d.Transport
	if word, ok := at.data.(string); ok {
		t.Protocol = word
	} else {
		t.Protocol = get[string](at, "protocol")
		t.SendProxy, t.Warm = get[string](at, "send_proxy"), get[int](at, "warm")
		b.buildBackendTLS(t, at)
		if warm := at.entry("warm"); warm != nil && t.Warm > 0 && t.SendProxy != "" {
			b.refuseKey(warm, refuse("has no effect with send_proxy: for whom a connection speaks is not known before there is a client"))
		}
	}
	if isSecure(t.Protocol) && t.MinVersion == "" {
		t.MinVersion = defaultTLSVersion
	}
	if t.Protocol == defaultProtocol {
		t.Protocol = ""
	}
}

// buildBackendTLS reads the TLS part, and refuses what has no effect.
func (b *builder) buildBackendTLS(t *Transport, at *value) {
	tls := at.entry("tls")
	if tls == nil {
		return
	}
	if at.sound("protocol") && !isSecure(t.Protocol) {
		b.refuseKey(tls, refuse("has no effect with protocol %s, which has no TLS: https and h2 do", t.Protocol))
	}
	t.SNI, t.Insecure, t.MinVersion = get[string](tls, "sni"), get[bool](tls, "insecure"), get[string](tls, "min_version")
	t.CA, t.Certificate, t.Key = b.fileOf(tls, "ca"), b.fileOf(tls, "certificate"), b.fileOf(tls, "key")
	if ca := tls.entry("ca"); ca != nil && t.Insecure {
		b.refuseKey(ca, refuse("has no effect with insecure: nothing is verified"))
	}
	switch key := tls.entry("key"); {
	case t.Certificate != "" && key == nil:
		t.Key = t.Certificate
	case key != nil && tls.entry("certificate") == nil && tls.sound("certificate"):
		b.refuseKey(key, refuse("has no effect without certificate"))
	}
}
