from scratchlm.data.samples.overlap import overlap_report, sentences


def test_speech_belongs_to_the_sentence_around_it():
    text = '"Come in! Sit down," said Mia. "Are you cold?" asked Tom. He was.\n\nThe end.'
    assert sentences(text) == [
        '"Come in! Sit down," said Mia.',
        '"Are you cold?" asked Tom.',
        "He was.",
        "The end.",
    ]


def test_texts_compared_with_themselves_share_everything():
    texts = ["One two three four five six seven eight nine ten eleven. And so it goes."]
    report = overlap_report(texts, texts)
    assert report.shared_texts == report.shared_sentences == 1.0
    assert report.shared_5grams == report.shared_10grams == 1.0


def test_shares_count_the_validation_side():
    train = ["A b c d e f.", "X y z."]
    val = ["A b c d e q. X y z. New one here."]
    report = overlap_report(train, val)
    assert report.shared_sentences == 1 / 3
    assert report.shared_5grams == 1 / 8  # of 12 words' eight runs only `a b c d e` is known
    assert (report.n_train_sentences, report.n_val_sentences) == (2, 3)


def test_no_validation_text_means_nothing_shared():
    assert overlap_report(["A sentence."], []).shared_sentences == 0.0
