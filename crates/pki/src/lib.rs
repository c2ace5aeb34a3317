//! Certificate authorities, issuing, service account tokens, kubeconfigs.
