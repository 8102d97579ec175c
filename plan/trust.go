package plan

// Names of the files of the guest directory that do not depend on the plan.
const (
	// CAFile holds the bottle's CA alone.
	CAFile = "ca.pem"
	// BundleFile holds the host's trusted roots and the bottle's CA, so that a
	// client whose variable replaces the system's bundle loses nothing.
	BundleFile = "ca-bundle.pem"
	// TrustStoreFile holds the same as BundleFile, as a key store for Java.
	TrustStoreFile = "ca-bundle.jks"
)

// trustEnv returns the variables that make each common client trust the
// bottle's CA. Clients disagree on the name, and on whether the file replaces
// the system's roots (SSL_CERT_FILE in OpenSSL and Go, CURL_CA_BUNDLE) or adds
// to them (NODE_EXTRA_CA_CERTS, DENO_CERT): the whole bundle suits both.
// Java reads no PEM file, and is told of its trust store by an option.
func trustEnv() []EnvVar {
	names := []string{
		"AWS_CA_BUNDLE",
		"CARGO_HTTP_CAINFO",
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
		"CURL_CA_BUNDLE",
		"DENO_CERT",
		"GIT_SSL_CAINFO",
		"HTTPLIB2_CA_CERTS",
		"NIX_SSL_CERT_FILE",
		"NODE_EXTRA_CA_CERTS",
		"PIP_CERT",
		"REQUESTS_CA_BUNDLE",
		"SSL_CERT_FILE",
		"npm_config_cafile",
	}
	env := make([]EnvVar, 0, len(names)+1)
	for _, name := range names {
		env = append(env, EnvVar{Name: name, Path: BundleFile})
	}
	return append(env, EnvVar{Name: "JAVA_TOOL_OPTIONS", Value: "-Djavax.net.ssl.trustStore=", Path: TrustStoreFile})
}
