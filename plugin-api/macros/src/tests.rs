use super::*;

fn error(attributes: Tokens, item: Tokens) -> String {
    expand(attributes, item).unwrap_err().to_string()
}

#[test]
fn options_and_names_are_checked_where_they_stand() {
    let good = quote!(
        async fn greet(ctx: TaskContext<App>, name: String) -> TaskResult<String> {
            Ok(name)
        }
    );
    assert!(
        expand(quote!(retry(max_attempts = 8, backoff = "2s..10m"), timeout = "30s"), good.clone()).is_ok()
    );
    assert!(expand(quote!(timeout = "30s", soft_timeout = "25s"), good.clone()).is_ok());
    let late = error(quote!(soft_timeout = "30s", timeout = "30s"), good.clone());
    assert!(late.contains("comes before timeout"), "{late}");
    assert!(error(quote!(timeout = "30 parsecs"), good.clone()).contains("no duration"));
    assert!(error(quote!(retry(backoff = "10m..2s")), good.clone()).contains("shorter"));
    assert!(error(quote!(name = "Greet"), good.clone()).contains("1 to 64"));
    assert!(
        expand(
            quote!(expires = "1h", concurrency = 2, max_running = 3, rate = "10/s", on_lost = "fail"),
            good.clone()
        )
        .is_ok()
    );
    assert!(expand(quote!(priorities, concurrency = 2), good.clone()).is_ok());
    assert!(error(quote!(priorities, max_running = 2), good.clone()).contains("a queue for each"));
    assert!(error(quote!(on_lost = "shrug"), good.clone()).contains("on_lost is"));
    assert!(expand(quote!(unique_key = "order.id", serial_key = "customer"), good.clone()).is_ok());
    assert!(error(quote!(unique_key = "order id"), good.clone()).contains("a field of the body"));
    assert!(error(quote!(name = "a", exhausted = "a"), good.clone()).contains("another task"));
    assert!(error(quote!(rate = "10/d"), good.clone()).contains("a rate is"));
    assert!(error(quote!(concurrency = 0), good.clone()).contains("between 1 and 4096"));
    assert!(expand(quote!(upcast = old::from_v1), good.clone()).is_ok());
    assert!(error(quote!(upcast = "from_v1"), good.clone()).contains("names a function"));
    assert!(error(quote!(colour = "red"), good).contains("known options"));
    assert!(
        error(
            quote!(),
            quote!(
                fn greet() {}
            )
        )
        .contains("a task is")
    );
}
